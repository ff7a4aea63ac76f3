//! How a LanceDB member, or the snapshots, reach their object store.
//!
//! There is no key for a secret: credentials come from the environment, where the clients of the object stores
//! look for them.

use super::problem::Problem;
use super::read::Section;
use super::write::{Text, quoted};

/// What follows the section of a member in the name of this one.
pub(super) const SECTION: &str = "storage_options";
/// The schemes of the object stores that a `uri` may name.
const SCHEMES: [&str; 3] = ["s3", "gs", "az"];

/// How an object store is reached. What is not set comes from the environment (`AWS_…`, `GOOGLE_…`,
/// `AZURE_STORAGE_…`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageConfig {
    /// The address of the service, if it is not the provider's own.
    pub endpoint: Option<String>,
    /// The region of the bucket (S3).
    pub region: Option<String>,
    /// The storage account (Azure).
    pub account: Option<String>,
    /// Whether the service may be spoken to without TLS.
    pub allow_http: bool,
    /// Whether the bucket is part of the host name, and not of the path (S3).
    pub virtual_hosted_style: bool,
}

/// Whether a URI names a place in an object store.
pub(super) fn is_object_store(uri: &str) -> bool {
    uri.split_once("://").is_some_and(|(scheme, _)| SCHEMES.contains(&scheme))
}

/// Reads the section.
pub(super) fn read(mut section: Section<'_>) -> StorageConfig {
    let mut storage = StorageConfig {
        endpoint: section.text("endpoint"),
        region: section.text("region"),
        account: section.text("account"),
        ..StorageConfig::default()
    };
    section.flag("allow_http", &mut storage.allow_http);
    section.flag("virtual_hosted_style", &mut storage.virtual_hosted_style);
    section.finish(|key| {
        let secret = ["key", "secret", "token", "password", "sas", "credential"];
        secret.iter().any(|word| key.to_lowercase().contains(word)).then(|| {
            "credentials come from the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                .to_owned()
        })
    });
    storage
}

/// What is wrong with the URI of a LanceDB member and its storage options,
/// or of the snapshots. `key` names a key of that section in full, `place` is the key of the URI.
pub(super) fn check(
    key: &impl Fn(&str) -> String,
    place: &str,
    uri: &str,
    storage: &StorageConfig,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let leave_out = "leave them out and set the environment variables of the object store instead";
    let Some((scheme, rest)) = uri.split_once("://").filter(|(scheme, _)| *scheme != "file") else {
        if *storage != StorageConfig::default() {
            problems.push(
                Problem::new(key(SECTION), format!("is set, but the {place} is a directory"))
                    .hint(format!("remove it, or write {place} = \"s3://bucket/prefix\"")),
            );
        }
        return problems;
    };
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') || rest.contains(['?', '#']) {
        problems.push(Problem::new(key(place), "carries credentials or a query").hint(leave_out));
    } else if is_object_store(uri) && authority.is_empty() {
        problems.push(
            Problem::new(key(place), "names no bucket")
                .hint(format!("write {place} = \"{scheme}://bucket/prefix\"")),
        );
    } else if !is_object_store(uri) && scheme != "memory" {
        let known = SCHEMES.map(|scheme| format!("{scheme}://")).join(", ");
        problems.push(
            Problem::new(key(place), "is neither a directory nor an object store that is known")
                .hint(format!("write a path, file://, {known}")),
        );
    }
    if let Some(endpoint) = &storage.endpoint {
        let key = key(&format!("{SECTION}.endpoint"));
        match endpoint.split_once("://") {
            Some(("http" | "https", rest)) if rest.contains(['@', '?', '#']) => {
                problems.push(Problem::new(key, "carries credentials or a query").hint(leave_out));
            }
            Some(("http", _)) if !storage.allow_http => problems.push(
                Problem::new(key, "is not encrypted")
                    .hint("write allow_http = true if that is meant, or https://"),
            ),
            Some(("http" | "https", _)) => {}
            _ => problems.push(
                Problem::new(key, "is no http:// or https:// address")
                    .hint("write for example \"http://localhost:9000\""),
            ),
        }
    }
    problems
}

/// Writes the section inside another one, if there is anything in it.
pub(super) fn write(of: &str, storage: &StorageConfig, out: &mut Text) {
    if *storage == StorageConfig::default() {
        return;
    }
    out.section(&format!("{of}.{SECTION}"));
    let texts = [("endpoint", &storage.endpoint), ("region", &storage.region), ("account", &storage.account)];
    for (key, text) in texts {
        if let Some(text) = text {
            out.key(key, quoted(text));
        }
    }
    out.key("allow_http", storage.allow_http);
    out.key("virtual_hosted_style", storage.virtual_hosted_style);
}

#[cfg(test)]
mod tests {
    use super::super::{BackendConfig, Config};
    use super::*;

    #[test]
    fn an_object_store_is_reached_as_file_and_environment_say() {
        let text = "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"lance\"\nuri = \"s3://bucket/p\"\n\
                    [members.a.storage_options]\nregion = \"eu-1\"\n";
        let variables = [
            ("MAINSTAY_MEMBERS__A__STORAGE_OPTIONS__ENDPOINT", "http://h:9000"),
            ("MAINSTAY_MEMBERS__A__STORAGE_OPTIONS__ALLOW_HTTP", "true"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = Config::from_toml_with_env(text, variables).unwrap();
        let BackendConfig::Lance(lance) = &config.members["a"].backend else { panic!() };
        let expected = StorageConfig {
            endpoint: Some("http://h:9000".into()),
            region: Some("eu-1".into()),
            allow_http: true,
            ..StorageConfig::default()
        };
        assert_eq!(lance.storage, expected);
        let secret = text.replace("region", "secret_access_key").replace("eu-1", "hunter2");
        assert!(!Config::from_toml(&secret).unwrap_err().to_string().contains("hunter2"));
    }
}
