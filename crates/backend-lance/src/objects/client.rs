//! The clients of the object stores, which take credentials from the environment alone.

use std::sync::Arc;

use mainstay_core::Result;
use object_store::ObjectStore;
use url::Url;

use super::bucket::Bucket;
use crate::config::StorageOptions;

/// The schemes of the object stores.
pub(crate) const SCHEMES: [&str; 3] = ["s3", "gs", "az"];

/// A client of the object store that a URL names.
///
/// # Errors
/// `Unsupported` without the cargo feature `cloud`, `Invalid` for options or variables that do not fit.
pub(crate) fn connect(url: Url, options: &StorageOptions) -> Result<Bucket> {
    let (store, equal_parts) = client(&url, options)?;
    Bucket::new(url, store, equal_parts)
}

/// The client, and whether it wants the parts of an upload to be of one size.
#[cfg(not(feature = "cloud"))]
fn client(url: &Url, _options: &StorageOptions) -> Result<(Arc<dyn ObjectStore>, bool)> {
    Err(mainstay_core::Error::new(
        mainstay_core::ErrorKind::Unsupported,
        format!(
            "LanceDB at {}://… is not compiled in: add the cargo feature `lance-cloud` (`cloud` of mainstay-lance)",
            url.scheme()
        ),
    ))
}

/// The client, and whether it wants the parts of an upload to be of one size.
#[cfg(feature = "cloud")]
fn client(url: &Url, options: &StorageOptions) -> Result<(Arc<dyn ObjectStore>, bool)> {
    // The requests need one, and an application that wants another has set it by now.
    let _ = rustls::crypto::ring::default_provider().install_default();
    build::client(url, options)
        .map_err(|e| mainstay_core::Error::invalid(format!("object store of {url}: {e}")).with_source(e))
}

#[cfg(feature = "cloud")]
mod build {
    use std::sync::Arc;
    use std::time::Duration;

    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
    use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
    use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
    use object_store::{ClientConfigKey, ObjectStore, Result, RetryConfig};
    use url::Url;

    use crate::config::StorageOptions;

    /// How long a request is tried again. The tier asks another member long before, and asks this one later.
    const RETRY_TIMEOUT: Duration = Duration::from_secs(20);
    /// Cloudflare R2 wants all parts of an upload to be of one size.
    const R2: &str = "r2.cloudflarestorage.com";

    /// The client, and whether it wants equal parts.
    pub(super) fn client(url: &Url, options: &StorageOptions) -> Result<(Arc<dyn ObjectStore>, bool)> {
        let retry = RetryConfig { max_retries: 5, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
        match url.scheme() {
            "gs" => {
                let mut builder =
                    GoogleCloudStorageBuilder::from_env().with_url(url.as_str()).with_retry(retry);
                if let Some(endpoint) = &options.endpoint {
                    builder = builder.with_config(GoogleConfigKey::BaseUrl, endpoint);
                }
                if options.allow_http {
                    builder =
                        builder.with_config(GoogleConfigKey::Client(ClientConfigKey::AllowHttp), "true");
                }
                Ok((Arc::new(builder.build()?), false))
            }
            "az" => {
                let mut builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str()).with_retry(retry);
                if let Some(endpoint) = &options.endpoint {
                    builder = builder.with_config(AzureConfigKey::Endpoint, endpoint);
                }
                if let Some(account) = &options.account {
                    builder = builder.with_config(AzureConfigKey::AccountName, account);
                }
                if options.allow_http {
                    builder = builder.with_config(AzureConfigKey::Client(ClientConfigKey::AllowHttp), "true");
                }
                Ok((Arc::new(builder.build()?), false))
            }
            _ => {
                let mut builder = AmazonS3Builder::from_env().with_url(url.as_str()).with_retry(retry);
                if let Some(endpoint) = &options.endpoint {
                    builder = builder.with_config(AmazonS3ConfigKey::Endpoint, endpoint);
                }
                if let Some(region) = &options.region {
                    builder = builder.with_config(AmazonS3ConfigKey::Region, region);
                }
                if options.allow_http {
                    builder =
                        builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp), "true");
                }
                if options.virtual_hosted_style {
                    builder = builder.with_config(AmazonS3ConfigKey::VirtualHostedStyleRequest, "true");
                }
                let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
                let equal_parts = endpoint.is_some_and(|endpoint| endpoint.contains(R2));
                Ok((Arc::new(builder.build()?), equal_parts))
            }
        }
    }
}
