//! Where metrics are served.

use std::net::SocketAddr;

use super::Problem;
use super::read::Section;

/// What the config says for no page.
const OFF: &str = "off";

/// Where metrics are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsConfig {
    /// The address and port of a page that Prometheus reads, while the tier is open. None: whoever opens a port should
    /// have said so. Needs the cargo feature `prometheus`.
    pub listen: Option<SocketAddr>,
}

impl MetricsConfig {
    /// The text of `listen` that reads back as this.
    pub(super) fn text(&self) -> String {
        self.listen.map_or_else(|| OFF.to_owned(), |address| address.to_string())
    }

    /// What is wrong if the page is wanted and not compiled in.
    pub(super) fn check_feature(&self) -> Option<Problem> {
        let missing = self.listen.is_some() && !cfg!(feature = "prometheus");
        missing.then(|| {
            let text = "the page of metrics is not compiled in: add the cargo feature `prometheus`";
            Problem::new("metrics.listen", text).hint("or write listen = \"off\"")
        })
    }
}

pub(super) fn read(section: &mut Section<'_>, metrics: &mut MetricsConfig) {
    let Some(text) = section.text("listen") else { return };
    match text.trim() {
        OFF => metrics.listen = None,
        address => match address.parse() {
            Ok(address) => metrics.listen = Some(address),
            Err(_) => section.problem(
                "listen",
                Problem::new("", format!("wants an IP address with a port, or \"off\", not {text:?}"))
                    .hint("write for example \"127.0.0.1:9464\""),
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    const TIER: &str = "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"memory\"\n";

    #[test]
    fn a_page_is_off_or_has_an_address_and_reads_back() {
        for (text, listen) in
            [("off", None), ("127.0.0.1:9464", Some("127.0.0.1:9464")), ("[::1]:0", Some("[::1]:0"))]
        {
            let config = Config::from_toml(&format!("{TIER}[metrics]\nlisten = \"{text}\"\n")).unwrap();
            assert_eq!(config.metrics.listen, listen.map(|address| address.parse().unwrap()));
            assert_eq!(Config::from_toml(&config.to_toml()).unwrap(), config);
        }
        for bad in ["localhost:9464", "127.0.0.1", "9464", "on", ""] {
            let text =
                Config::from_toml(&format!("{TIER}[metrics]\nlisten = \"{bad}\"\n")).unwrap_err().to_string();
            assert!(text.contains("metrics.listen") && text.contains("127.0.0.1:9464"), "{text}");
        }
    }

    #[test]
    fn a_page_that_is_not_compiled_in_is_refused_with_the_feature() {
        let config = Config::from_toml(&format!("{TIER}[metrics]\nlisten = \"127.0.0.1:0\"\n")).unwrap();
        let checked = config.check_features(&["memory"]);
        match cfg!(feature = "prometheus") {
            true => checked.unwrap(),
            false => assert!(checked.unwrap_err().to_string().contains("cargo feature `prometheus`")),
        }
    }
}
