//! Large pieces of memory, which the system is asked to back with huge pages.
//!
//! Memory that is touched for the first time costs a fault for each page: a quarter of a million of them for a gigabyte of
//! pages of 4 KiB, half a thousand for huge ones.

use std::io;
use std::ops::{Deref, DerefMut};

use mainstay_core::{Error, ErrorKind, Result};
use memmap2::MmapMut;

/// Bytes, zero at first. What nobody wrote takes no memory, but for the rest of a page that somebody wrote to.
pub struct Pages(MmapMut);

impl Pages {
    /// So many of them.
    ///
    /// # Errors
    /// `StorageFull` if the system has not so many.
    pub fn zeroed(bytes: usize) -> Result<Self> {
        let full = |error: io::Error| {
            Error::new(ErrorKind::StorageFull, format!("{bytes} bytes of memory cannot be had"))
                .with_source(error)
        };
        let pages = MmapMut::map_anon(bytes).map_err(full)?;
        #[cfg(target_os = "linux")]
        if let Err(error) = pages.advise(memmap2::Advice::HugePage) {
            tracing::debug!(%error, "memory without huge pages");
        }
        Ok(Self(pages))
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
