//! `--api-server`: the servers that the page at `/docs` offers beside its own.

use std::net::Ipv4Addr;

use anyhow::bail;

/// The name on the page of the server that serves it.
const OWN: &str = "Development";
const NAME_CHARACTERS: usize = 40;

/// A server of the same API, with the name that people see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiServer {
    pub(crate) name: String,
    /// `http` or `https`, a host, and optionally a port and a path. It has no slash at the end and the form that browsers
    /// use, so it can stand in a `Content-Security-Policy` unchanged.
    pub(crate) url: String,
}

impl ApiServer {
    /// `NAME=URL`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let Some((name, url)) = text.split_once('=') else {
            return Err("NAME=URL, such as Production=https://api.example.com".to_owned());
        };
        let name = name.trim();
        let is_short = (1..=NAME_CHARACTERS).contains(&name.chars().count());
        let is_plain = |c: char| c.is_alphanumeric() || " -_.()".contains(c);
        if !is_short || !name.chars().all(is_plain) {
            return Err(format!(
                "a name of 1 to {NAME_CHARACTERS} letters, digits, spaces and -_.() before the ="
            ));
        }
        if name.eq_ignore_ascii_case(OWN) {
            return Err(format!(
                "{OWN} is the name of this server itself: choose another"
            ));
        }
        let url = as_browsers_write_it(url.trim().trim_end_matches('/')).ok_or(
            "an http:// or https:// URL with a host name or an IPv4 address after the =, perhaps with a port and a path, and \
             nothing else",
        )?;
        Ok(Self {
            name: name.to_owned(),
            url,
        })
    }

    /// The source expression of Content Security Policy for this server only.
    pub(crate) fn source(&self) -> String {
        let (_, rest) = self.url.split_once("://").expect("it was parsed");
        // A path without a slash at its end allows that path only. A slash allows everything below it.
        let slash = if rest.contains('/') { "/" } else { "" };
        format!("{}{slash}", self.url)
    }

    /// Refuses two servers with the same name or the same URL.
    pub(crate) fn refuse_same(servers: &[Self]) -> anyhow::Result<()> {
        for (n, server) in servers.iter().enumerate() {
            let name = server.name.to_lowercase();
            if servers[..n]
                .iter()
                .any(|other| other.name.to_lowercase() == name || other.url == server.url)
            {
                bail!(
                    "API_SERVERS names {}={} twice, by its name or by its URL",
                    server.name,
                    server.url
                )
            }
        }
        Ok(())
    }
}

/// The URL of a server, in the form that browsers use. The check is strict, because the URL becomes part of a policy: a
/// wrong character there would allow more, or nothing. The page also compares it with the addresses of requests, which
/// contain neither the default port nor unusual forms of IPv4.
fn as_browsers_write_it(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, Some(path)),
        None => (rest, None),
    };
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|n| n.to_string() == port);
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let is_segment = |segment: &str| {
        !["", ".", ".."].contains(&segment)
            && segment
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
    };
    // Browsers take a host that ends in a number for an IPv4 address (URL Standard, 3.5).
    let is_number = |label: &str| {
        let digits = label.strip_prefix("0x");
        label.bytes().all(|b| b.is_ascii_digit())
            || digits.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let default_port = match scheme {
        "http" => "80",
        "https" => "443",
        _ => return None,
    };
    let is_server = host.split('.').all(is_label)
        && (!host.rsplit('.').next().is_some_and(is_number) || host.parse::<Ipv4Addr>().is_ok())
        && port.is_none_or(is_port)
        && path.is_none_or(|path| path.split('/').all(is_segment));
    let port = port.filter(|port| *port != default_port);
    let port = port.map_or(String::new(), |port| format!(":{port}"));
    let path = path.map_or(String::new(), |path| format!("/{path}"));
    is_server.then(|| format!("{scheme}://{host}{port}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_name_and_a_url() {
        for (text, name, url, source) in [
            (
                "Production=https://api.example.com",
                "Production",
                "https://api.example.com",
                "https://api.example.com",
            ),
            (
                " Canlı ortam = https://api.example.com:8443/ ",
                "Canlı ortam",
                "https://api.example.com:8443",
                "https://api.example.com:8443",
            ),
            (
                "Staging (2)=http://10.0.0.1/profiles/v2/",
                "Staging (2)",
                "http://10.0.0.1/profiles/v2",
                "http://10.0.0.1/profiles/v2/",
            ),
            (
                "Test=https://test.example:443/v2",
                "Test",
                "https://test.example/v2",
                "https://test.example/v2/",
            ),
        ] {
            let server = ApiServer::parse(text).unwrap();
            assert_eq!((&*server.name, &*server.url), (name, url));
            assert_eq!(server.source(), source);
        }
    }

    #[test]
    fn a_url_that_would_change_the_policy_is_refused() {
        for url in [
            "",
            "api.example.com",
            "//api.example.com",
            "ftp://api.example.com",
            "HTTPS://api.example.com",
            "https://",
            "https://*",
            "https://*.example.com",
            "https://API.example.com",
            "https://api..example.com",
            "https://-a.example.com",
            "https://user@api.example.com",
            "https://user:word@api.example.com",
            "https://api.example.com:",
            "https://api.example.com:0443",
            "https://api.example.com:99999",
            "https://api.example.com:*",
            "https://2130706433",
            "https://127.1",
            "https://0x7f.0.0.1",
            "https://127.0.0.0x1",
            "https://127.0.0.01",
            "https://1.2.3.4.5",
            "https://[::1]:8080",
            "https://api.example.com?x=1",
            "https://api.example.com#x",
            "https://api.example.com/a?b",
            "https://api.example.com/a//b",
            "https://api.example.com/a/../b",
            "https://api.example.com/%2e%2e",
            "https://api.example.com https://evil.example",
            "https://api.example.com;script-src *",
            "https://api.example.com/;script-src",
            "https://api.example.com\r\nX: y",
            "https://api.example.com/ü",
            "https://exämple.com",
            "'unsafe-inline'",
            "data:",
        ] {
            let refused = ApiServer::parse(&format!("Production={url}"));
            assert!(refused.is_err(), "{url}: {refused:?}");
        }
        for name in ["", " ", "development", "a<b", "a\nb", &"x".repeat(41)] {
            let refused = ApiServer::parse(&format!("{name}=https://api.example.com"));
            assert!(refused.is_err(), "{name}: {refused:?}");
        }
        assert!(ApiServer::parse("https://api.example.com").is_err());
    }

    #[test]
    fn two_servers_with_the_same_name_or_url_are_refused() {
        let one = ApiServer::parse("Production=https://a.example").unwrap();
        let same_name = ApiServer::parse("PRODUCTION=https://b.example").unwrap();
        let same_url = ApiServer::parse("Staging=https://a.example/").unwrap();
        let same_port = ApiServer::parse("Staging=https://a.example:443").unwrap();
        let other = ApiServer::parse("Staging=https://b.example").unwrap();
        assert!(ApiServer::refuse_same(&[one.clone(), other]).is_ok());
        for same in [same_name, same_url, same_port] {
            let error = ApiServer::refuse_same(&[one.clone(), same]).unwrap_err();
            assert!(error.to_string().contains("twice"), "{error}");
        }
    }
}
