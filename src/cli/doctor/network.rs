//! Whether a node reaches the services of the models: it opens a connection to each, or to the proxy before it, and sends
//! nothing.

use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::check::{Finding, start};
use crate::backend::Backends;
use crate::orchestrator::services_of;

/// Time limit for one connection, and for all of them with the search for the addresses.
const CONNECTION: Duration = Duration::from_secs(4);
const LIMIT: Duration = Duration::from_secs(15);

/// Variables that name a proxy, or hosts without one.
pub(super) const PROXIES: [&str; 8] =
    ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"];

/// A connection to try, and what it is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    host: String,
    port: u16,
    /// The service behind it, if this is a proxy.
    proxy_to: Option<String>,
}

/// Tries the service of each of these backends, for which any of its addresses is enough. Backends whose service is not
/// known are left out.
pub fn check(backends: &Backends, names: &[&str], variable: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let mut of_services: BTreeMap<Vec<Way>, Vec<&str>> = BTreeMap::new();
    for name in names {
        let Ok(backend) = backends.get(name) else { continue };
        let ways: Vec<Way> =
            services_of(&backend.probe(), &variable).iter().filter_map(|it| way_to(it, &variable)).collect();
        if !ways.is_empty() {
            of_services.entry(ways).or_default().push(name);
        }
    }
    let tried = of_services.into_iter().map(|(ways, names)| {
        let (shown, tried) = (ways.clone(), start(move || first_reached(&ways)));
        (names.join(", "), shown, tried)
    });
    let tried: Vec<_> = tried.collect();
    tried.into_iter().map(|(names, ways, reached)| finding(&names, &ways, reached.finish(LIMIT))).collect()
}

fn finding(names: &str, ways: &[Way], reached: Option<Result<Way, String>>) -> Finding {
    const NAME: &str = "network";
    let why = match reached {
        Some(Ok(way)) => return Finding::ok(NAME, format!("{} is reached ({names})", way.words())),
        Some(Err(why)) => why,
        None => "no answer in time".to_owned(),
    };
    let ways: Vec<String> = ways.iter().map(Way::words).collect();
    let message = format!(
        "cannot reach {} ({names}): {why}; if there is a proxy, name it by `pass_env` or `prologue` of the launcher",
        ways.join(" or ")
    );
    Finding::warn(NAME, message)
}

/// Returns the first that accepts a connection, or why the last one does not.
fn first_reached(ways: &[Way]) -> Result<Way, String> {
    let mut why = String::new();
    for way in ways {
        match way.connect() {
            Ok(()) => return Ok(way.clone()),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

impl Way {
    fn words(&self) -> String {
        let to = self.proxy_to.as_ref().map(|service| format!(", the proxy to {service},")).unwrap_or_default();
        format!("{}:{}{to}", self.host, self.port)
    }

    fn connect(&self) -> std::io::Result<()> {
        let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "it has no address");
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECTION) {
                Ok(_) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Returns the connection that a CLI opens for a service. `None` for an address that is none.
fn way_to(service: &str, variable: impl Fn(&str) -> Option<String>) -> Option<Way> {
    let (host, port) = host_and_port(service)?;
    match proxy_of(service, &host, variable) {
        None => Some(Way { host, port, proxy_to: None }),
        Some(proxy) => {
            let (proxy, port) = host_and_port(&proxy)?;
            Some(Way { host: proxy, port, proxy_to: Some(host) })
        }
    }
}

/// Returns the proxy for a host. The names in lower case count first, as in curl.
fn proxy_of(service: &str, host: &str, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let first = |names: [&str; 2]| names.iter().find_map(|name| variable(name).filter(|value| !value.is_empty()));
    let without = first(["no_proxy", "NO_PROXY"]).unwrap_or_default();
    let is_meant = |name: &str| {
        let name = name.trim().trim_start_matches('.');
        name == "*" || host == name || (!name.is_empty() && host.ends_with(&format!(".{name}")))
    };
    if without.split(',').any(is_meant) {
        return None;
    }
    let names =
        if service.starts_with("http://") { ["http_proxy", "HTTP_PROXY"] } else { ["https_proxy", "HTTPS_PROXY"] };
    first(names).or_else(|| first(["all_proxy", "ALL_PROXY"]))
}

/// Returns the host and the port of an address such as `https://user@host:8443/path`.
fn host_and_port(address: &str) -> Option<(String, u16)> {
    let (scheme, rest) = address.split_once("://").unwrap_or(("http", address));
    let usual = match scheme {
        "https" => 443,
        "socks5" | "socks5h" => 1080,
        _ => 80,
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.strip_prefix('[') {
        // An IPv6 address.
        Some(rest) => rest.split_once(']')?,
        None => authority.find(':').map_or((authority, ""), |at| authority.split_at(at)),
    };
    let port = port.strip_prefix(':').map_or(Some(usual), |port| port.parse().ok())?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_has_a_host_and_a_port() {
        let cases = [
            ("https://api.anthropic.com", Some(("api.anthropic.com", 443))),
            ("http://127.0.0.1:8080/v1?x", Some(("127.0.0.1", 8080))),
            ("http://user:secret@proxy:3128", Some(("proxy", 3128))),
            ("proxy:3128", Some(("proxy", 3128))),
            ("socks5h://proxy", Some(("proxy", 1080))),
            ("https://[::1]:8443/", Some(("::1", 8443))),
            ("https://[::1]", Some(("::1", 443))),
            ("https://", None),
            ("https://host:port", None),
        ];
        for (address, expected) in cases {
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(host_and_port(address), expected, "{address}");
        }
    }

    #[test]
    fn proxy_stands_before_the_service() {
        let service = "https://api.example.com/v1";
        let way = |set: &[(&str, &str)]| {
            let variable = |name: &str| set.iter().find(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned());
            way_to(service, variable).expect("an address").words()
        };
        let direct = "api.example.com:443";
        let through = "proxy:3128, the proxy to api.example.com,";
        assert_eq!(way(&[]), direct);
        assert_eq!(way(&[("HTTP_PROXY", "http://proxy:3128")]), direct);
        assert_eq!(way(&[("HTTPS_PROXY", "http://proxy:3128")]), through);
        assert_eq!(way(&[("https_proxy", "proxy:3128"), ("HTTPS_PROXY", "http://other:1")]), through);
        assert_eq!(way(&[("ALL_PROXY", "http://proxy:3128"), ("NO_PROXY", "ample.com")]), through);
        for without in ["*", "a, example.com", ".example.com", "api.example.com"] {
            assert_eq!(way(&[("HTTPS_PROXY", "http://proxy:3128"), ("no_proxy", without)]), direct, "{without}");
        }
    }

    #[test]
    fn one_address_of_a_service_is_enough() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let open = Way { host: "127.0.0.1".to_owned(), port, proxy_to: None };
        // Nothing listens on it without privileges.
        let closed = Way { port: 1, ..open.clone() };
        assert_eq!(first_reached(&[closed.clone(), open.clone()]), Ok(open));
        assert!(first_reached(&[closed]).is_err_and(|why| why.contains("refused")));
    }
}
