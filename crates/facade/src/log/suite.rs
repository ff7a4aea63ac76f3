//! The promises that every log keeps.
