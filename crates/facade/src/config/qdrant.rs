//! A Qdrant member: a server, a cluster, or a directory in this process.

use std::path::PathBuf;
use std::time::Duration;

use super::problem::Problem;
use super::read::Section;
use super::write::{Text, duration_text, quoted};

/// The keys of the backend.
pub(super) const KEYS: &[&str] = &[
    "url",
    "urls",
    "path",
    "api_key_env",
    "api_key_file",
    "connect_timeout",
    "pool_size",
    "compression",
    "write_ordering",
    "read_consistency",
    "shard_number",
    "replication_factor",
    "write_consistency_factor",
    "vectors_on_disk",
    "payload_on_disk",
    "vector_quantization",
];

/// A Qdrant store.
#[derive(Clone, Debug, PartialEq)]
pub struct QdrantConfig {
    /// Where it is.
    pub place: QdrantPlace,
    /// Where the API key or token is found, if the server wants one. A config never holds it.
    pub api_key: Option<KeySource>,
    /// How long connecting may take. 5 s.
    pub connect_timeout: Duration,
    /// Connections to each node. 3.
    pub pool_size: usize,
    /// Compression on the wire. None: the fastest on a local network.
    pub compression: Compression,
    /// How the replicas of a cluster order writes. Medium: what one tier writes stays in its order.
    pub write_ordering: WriteOrdering,
    /// How many replicas a read asks. One.
    pub read_consistency: ReadConsistency,
    /// Shards of a new collection; 0 leaves the choice to the server.
    pub shard_number: u32,
    /// Copies of each shard of a new collection; 0 leaves the choice to the server.
    pub replication_factor: u32,
    /// Copies that must have a write before it is answered; 0 leaves the choice to the server.
    pub write_consistency_factor: u32,
    /// Where the vectors of a new collection are kept.
    pub vectors_on_disk: Placement,
    /// Where the payloads of a new collection are kept.
    pub payload_on_disk: Placement,
    /// Quantisation of a new collection's search; the vectors themselves stay as they are.
    pub vector_quantization: VectorQuantization,
}

/// Where a Qdrant store is.
#[derive(Clone, Debug, PartialEq)]
pub enum QdrantPlace {
    /// The gRPC addresses of a server or of a cluster's nodes (cargo feature `qdrant`).
    Server(Vec<String>),
    /// A directory of this process (cargo feature `qdrant-edge`).
    Directory(PathBuf),
}

/// Where a secret is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// In this variable of the environment.
    Env(String),
    /// In this file, without the white space around it.
    File(PathBuf),
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            pub(crate) const WORDS: &[(&'static str, Self)] = &[$(($word, Self::$variant)),+];

            /// The word in the config.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

words! {
    /// Compression on the wire.
    Compression {
        /// None.
        #[default]
        None = "none",
        /// gzip.
        Gzip = "gzip",
    }
}

words! {
    /// How the replicas of a cluster order concurrent writes.
    WriteOrdering {
        /// By whichever node takes them.
        Weak = "weak",
        /// By a leader that may change.
        #[default]
        Medium = "medium",
        /// By a fixed leader; unavailable while it is down.
        Strong = "strong",
    }
}

words! {
    /// How many replicas a read asks.
    ReadConsistency {
        /// One.
        #[default]
        One = "one",
        /// Most of them.
        Majority = "majority",
        /// Most of them, and what all that answer hold.
        Quorum = "quorum",
        /// All.
        All = "all",
    }
}

words! {
    /// Where something is kept.
    Placement {
        /// Where the server keeps it by default.
        #[default]
        Server = "server",
        /// On disk.
        Disk = "disk",
        /// In memory.
        Memory = "memory",
    }
}

words! {
    /// Quantisation of a collection's search.
    VectorQuantization {
        /// None.
        #[default]
        None = "none",
        /// One byte a dimension.
        Scalar = "scalar",
        /// One bit a dimension.
        Binary = "binary",
    }
}

impl QdrantConfig {
    /// A server with the defaults for the rest.
    pub fn server(url: impl Into<String>) -> Self {
        Self::at(QdrantPlace::Server(vec![url.into()]))
    }

    /// A directory in this process.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self::at(QdrantPlace::Directory(path.into()))
    }

    fn at(place: QdrantPlace) -> Self {
        Self {
            place,
            api_key: None,
            connect_timeout: Duration::from_secs(5),
            pool_size: 3,
            compression: Compression::default(),
            write_ordering: WriteOrdering::default(),
            read_consistency: ReadConsistency::default(),
            shard_number: 0,
            replication_factor: 0,
            write_consistency_factor: 0,
            vectors_on_disk: Placement::default(),
            payload_on_disk: Placement::default(),
            vector_quantization: VectorQuantization::default(),
        }
    }

    /// The cargo feature that it needs.
    pub const fn feature(&self) -> &'static str {
        match self.place {
            QdrantPlace::Server(_) => "qdrant",
            QdrantPlace::Directory(_) => "qdrant-edge",
        }
    }
}

/// Reads the keys of a member.
pub(super) fn read(section: &mut Section<'_>) -> QdrantConfig {
    let (url, path) = (section.text("url"), section.text("path"));
    let mut urls = Vec::new();
    section.list("urls", &mut urls);
    urls.splice(0..0, url);
    let place = match path {
        Some(path) => {
            if !urls.is_empty() {
                section.problem(
                    "path",
                    Problem::new("", "is set beside a url")
                        .hint("a member is a server or a directory; keep one"),
                );
            }
            QdrantPlace::Directory(path.into())
        }
        None => {
            if urls.is_empty() {
                let hint = "write url = \"http://localhost:6334\" for a server, or path = \"data/qdrant\" for one \
                            inside this process";
                section.problem("url", Problem::new("", "is not set").hint(hint));
            }
            QdrantPlace::Server(urls)
        }
    };
    let mut qdrant = QdrantConfig::at(place);
    let (env, file) = (section.text("api_key_env"), section.text("api_key_file"));
    if env.is_some() && file.is_some() {
        section.problem("api_key_file", Problem::new("", "is set beside api_key_env").hint("keep one"));
    }
    qdrant.api_key = env.map(KeySource::Env).or(file.map(|file| KeySource::File(file.into())));
    section.duration("connect_timeout", &mut qdrant.connect_timeout);
    section.count("pool_size", &mut qdrant.pool_size);
    section.word("compression", Compression::WORDS, &mut qdrant.compression);
    section.word("write_ordering", WriteOrdering::WORDS, &mut qdrant.write_ordering);
    section.word("read_consistency", ReadConsistency::WORDS, &mut qdrant.read_consistency);
    section.count("shard_number", &mut qdrant.shard_number);
    section.count("replication_factor", &mut qdrant.replication_factor);
    section.count("write_consistency_factor", &mut qdrant.write_consistency_factor);
    section.word("vectors_on_disk", Placement::WORDS, &mut qdrant.vectors_on_disk);
    section.word("payload_on_disk", Placement::WORDS, &mut qdrant.payload_on_disk);
    section.word("vector_quantization", VectorQuantization::WORDS, &mut qdrant.vector_quantization);
    qdrant
}

/// What is wrong with a URL.
pub(super) fn url_problem(url: &str) -> Option<Problem> {
    let Some(("http" | "https", rest)) = url.split_once("://") else {
        return Some(
            Problem::new("", format!("\"{}\" is no http:// or https:// address", url.escape_debug()))
                .hint("write the gRPC address, such as \"http://localhost:6334\""),
        );
    };
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Some(
            Problem::new("", "carries credentials")
                .hint("leave them out and name the variable that holds the key in api_key_env"),
        );
    }
    if authority.is_empty() {
        return Some(Problem::new("", "names no host"));
    }
    None
}

/// Writes the keys of a member.
pub(super) fn write(qdrant: &QdrantConfig, out: &mut Text) {
    match &qdrant.place {
        QdrantPlace::Directory(path) => {
            out.key("path", quoted(&path.to_string_lossy()));
            return;
        }
        QdrantPlace::Server(urls) => {
            let urls: Vec<String> = urls.iter().map(|url| quoted(url)).collect();
            match &urls[..] {
                [url] => out.key("url", url),
                urls => out.key("urls", format!("[{}]", urls.join(", "))),
            }
        }
    }
    match &qdrant.api_key {
        None => {}
        Some(KeySource::Env(name)) => out.key("api_key_env", quoted(name)),
        Some(KeySource::File(path)) => out.key("api_key_file", quoted(&path.to_string_lossy())),
    }
    out.key("connect_timeout", quoted(&duration_text(qdrant.connect_timeout)));
    out.key("pool_size", qdrant.pool_size);
    out.key("compression", quoted(qdrant.compression.as_str()));
    out.key("write_ordering", quoted(qdrant.write_ordering.as_str()));
    out.key("read_consistency", quoted(qdrant.read_consistency.as_str()));
    out.key("shard_number", qdrant.shard_number);
    out.key("replication_factor", qdrant.replication_factor);
    out.key("write_consistency_factor", qdrant.write_consistency_factor);
    out.key("vectors_on_disk", quoted(qdrant.vectors_on_disk.as_str()));
    out.key("payload_on_disk", quoted(qdrant.payload_on_disk.as_str()));
    out.key("vector_quantization", quoted(qdrant.vector_quantization.as_str()));
}
