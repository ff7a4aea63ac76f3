//! Where a store is, as the command line says it.

use std::path::PathBuf;
use std::sync::Arc;

use mainstay::config::{BackendConfig, Config, LanceConfig, QdrantConfig};
use mainstay::{Error, Result, VectorStore, open_store};

/// A store that is named on the command line.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// As it was written.
    pub name: String,
    /// The store.
    pub backend: BackendConfig,
}

impl Place {
    /// A member of the config by its name, `http://HOST:PORT` (a Qdrant server), `qdrant:DIRECTORY`,
    /// `lance:DIRECTORY`, or `s3://BUCKET/PREFIX`, `gs://…` and `az://…` (LanceDB in an object store).
    ///
    /// # Errors
    /// `Invalid` for a text that is none of them, and for a member in memory, which holds nothing by itself.
    pub fn parse(text: &str, config: Option<&Config>) -> Result<Self> {
        let backend = match text.split_once(':') {
            Some(("http" | "https", _)) => BackendConfig::Qdrant(Box::new(QdrantConfig::server(text))),
            Some(("qdrant", path)) if !path.is_empty() => {
                BackendConfig::Qdrant(Box::new(QdrantConfig::directory(PathBuf::from(path))))
            }
            Some(("s3" | "gs" | "az", rest)) if rest.starts_with("//") => {
                BackendConfig::Lance(LanceConfig::new(text))
            }
            Some(("lance", path)) if !path.is_empty() => BackendConfig::Lance(LanceConfig::new(path)),
            _ => match config.and_then(|config| config.members.get(text)) {
                Some(member) => member.backend.clone(),
                None => {
                    let members = config.map(|config| config.tier.members.join(", ")).unwrap_or_default();
                    return Err(Error::invalid(format!(
                        "`{text}` is no place: write a member of the config ({members}), http://HOST:PORT, \
                         qdrant:DIRECTORY, lance:DIRECTORY or s3://BUCKET/PREFIX"
                    )));
                }
            },
        };
        if matches!(backend, BackendConfig::Memory(_)) {
            return Err(Error::invalid(format!(
                "member `{text}` is in memory, and holds nothing outside the process that serves it"
            )));
        }
        Ok(Self { name: text.to_owned(), backend })
    }

    /// Opens the store.
    ///
    /// # Errors
    /// `Unsupported` if its backend is not compiled in, and whatever the store runs into, such as another process
    /// that has it open.
    pub async fn open(&self) -> Result<Arc<dyn VectorStore>> {
        open_store(&self.backend).await.map_err(|error| error.with_member(&self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_member_a_server_or_a_directory() {
        let config = "[tier]\nmembers = [\"a\", \"m\"]\n[members.a]\nbackend = \"lance\"\nuri = \"x\"\n\
                      [members.m]\nbackend = \"memory\"\n";
        let config = Config::from_toml(config).unwrap();
        let backend = |text: &str| Place::parse(text, Some(&config)).map(|place| place.backend);
        assert_eq!(backend("a").unwrap(), BackendConfig::Lance(LanceConfig::new("x")));
        assert_eq!(backend("lance:/d").unwrap(), BackendConfig::Lance(LanceConfig::new("/d")));
        assert_eq!(backend("s3://b/p").unwrap(), BackendConfig::Lance(LanceConfig::new("s3://b/p")));
        assert_eq!(backend("lance:gs://b/p").unwrap().feature(), "lance-cloud");
        assert_eq!(backend("qdrant:/d").unwrap().feature(), "qdrant-edge");
        assert_eq!(backend("http://h:6334").unwrap().feature(), "qdrant");
        for bad in ["m", "b", "", "lance:", "s3:", "http", "s3x://bucket"] {
            assert!(backend(bad).is_err(), "{bad:?}");
        }
    }
}
