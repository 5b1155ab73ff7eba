//! The configuration of nginx: the shipped profile with the addresses, ports and files of a
//! deployment. A profile has no secrets, because nginx does not check tokens.

use super::{
    Deployment, LOCK_SLACK, Nginx, Profile, READ_SLACK, fill, literal, seconds, with_includes,
};

const NGINX_FRAME: &str = include_str!("../../nginx/nginx.conf");
const NGINX_PARTS: [(&str, &str); 7] = [
    ("collapse.conf", include_str!("../../nginx/collapse.conf")),
    ("stream.conf", include_str!("../../nginx/stream.conf")),
    ("varnish.conf", include_str!("../../nginx/varnish.conf")),
    ("squid.conf", include_str!("../../nginx/squid.conf")),
    ("maps.conf", include_str!("../../nginx/maps.conf")),
    ("streams.conf", include_str!("../../nginx/streams.conf")),
    ("common.conf", include_str!("../../nginx/common.conf")),
];

/// A complete `nginx.conf` for `nginx -c`.
pub fn nginx(wanted: &Nginx) -> String {
    let frame = fill(NGINX_FRAME, &[("collapse.conf", wanted.profile.file().to_owned())]);
    let text = with_includes(&frame, nginx_include);
    let origin = &wanted.deployment.origin;
    let shipped = if wanted.profile == Profile::Varnish { "6081" } else { "8080" };
    let text = with_servers(&text, shipped, &wanted.deployment);
    let mut values = vec![(format!("default 127.0.0.1:{shipped}"), format!("default {origin}"))];
    // Lanes shift the boundaries of streams, and a long poll has no boundary.
    if wanted.profile != Profile::Collapse {
        values.push(("* \"\";".to_owned(), split_lanes(wanted.deployment.lanes)));
    }
    if wanted.profile == Profile::Collapse {
        let wait = |slack| format!("{}s;", seconds(wanted.long_poll_timeout + slack));
        values.extend([
            ("lock_timeout 25s;".to_owned(), format!("lock_timeout {}", wait(LOCK_SLACK))),
            ("lock_age 25s;".to_owned(), format!("lock_age {}", wait(LOCK_SLACK))),
            ("read_timeout 30s;".to_owned(), format!("read_timeout {}", wait(READ_SLACK))),
        ]);
        values.extend(
            wanted
                .cache_dir
                .iter()
                .map(|directory| ("/var/cache/headwater".into(), directory.clone())),
        );
    }
    if matches!(wanted.profile, Profile::Stream | Profile::Varnish) {
        let wait = seconds(wanted.long_poll_timeout + READ_SLACK + LOCK_SLACK);
        values.push(("read_timeout 35s;".to_owned(), format!("read_timeout {wait}s;")));
    }
    if matches!(wanted.profile, Profile::Squid | Profile::Collapse) {
        values.extend(pages(wanted.profile, &wanted.cors_origins));
    }
    if wanted.profile == Profile::Squid {
        values.extend(around_squid(wanted));
    }
    if let Some(most) = wanted.client_connections {
        let limit = |most: &dyn std::fmt::Display| format!("limit_conn headwater_clients {most};");
        values.push(match wanted.profile {
            Profile::Collapse => (limit(&1_000), limit(&most)),
            _ => (format!("# {}", limit(&100)), limit(&most)),
        });
    }
    values.push(listen(wanted));
    values.extend(wanted.tls.iter().filter(|_| wanted.profile == Profile::Varnish).flat_map(
        |(certificate, key)| {
            [
                ("/etc/ssl/headwater/fullchain.pem".to_owned(), certificate.clone()),
                ("/etc/ssl/headwater/key.pem".to_owned(), key.clone()),
            ]
        },
    ));
    values.iter().fold(text, |text, (from, to)| fill(&text, &[(from.as_str(), to.clone())]))
}

/// Lists the origins in the upstreams of nginx, in the place of the shipped one.
fn with_servers(text: &str, shipped: &str, deployment: &Deployment) -> String {
    let shipped = format!("server 127.0.0.1:{shipped}");
    let origins = std::iter::once(&deployment.origin).chain(&deployment.further_origins);
    let origins: Vec<_> = origins.map(|origin| format!("server {origin}")).collect();
    let is_alone = origins.len() == 1;
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        if !line.trim_start().starts_with(&shipped) {
            out += line;
        } else if is_alone {
            out += &line.replace(&shipped, &origins[0]);
        } else if !line.trim_end().ends_with(" backup;") {
            // nginx tries a server again a second after it failed, and not after ten, its default.
            let line = match line.contains("fail_timeout") {
                true => line.to_owned(),
                false => line.replace(';', " max_fails=1 fail_timeout=1s;"),
            };
            out.extend(origins.iter().map(|origin| line.replace(&shipped, origin)));
        }
    }
    out
}

/// The shipped map of web origins, and its replacement: a cache key for each origin that may read.
fn pages(profile: Profile, cors_origins: &[String]) -> Option<(String, String)> {
    const PAGES: &str = "map $http_origin $headwater_page {\n";
    if cors_origins.is_empty() {
        return None;
    }
    let others = if profile == Profile::Squid { "\"\"" } else { "$http_origin" };
    let shipped = format!("{PAGES}        default {others};\n");
    let mut pages = PAGES.to_owned();
    for (origin, number) in cors_origins.iter().zip(1..) {
        // A regular expression, because nginx limits the length of plain values.
        pages += &format!("        \"~^{}$\" &page={number};\n", literal(origin));
    }
    Some((shipped, pages + "        default \"\";\n"))
}

/// The values of [`Profile::Squid`] for both sides of Squid.
fn around_squid(wanted: &Nginx) -> Vec<(String, String)> {
    let wait = |slack| format!("{}s;", seconds(wanted.long_poll_timeout + slack));
    let mut values = vec![
        ("read_timeout 30s;".to_owned(), format!("read_timeout {}", wait(READ_SLACK))),
        ("read_timeout 35s;".to_owned(), format!("read_timeout {}", wait(READ_SLACK + LOCK_SLACK))),
    ];
    if let Some(squid) = &wanted.squid {
        values.push(("server 127.0.0.1:3128".to_owned(), format!("server {squid}")));
    }
    if let Some(inner) = &wanted.inner_listen {
        // A port without an address would be open to other machines.
        let host = if inner.contains(':') { "" } else { "127.0.0.1:" };
        values.push(("listen 127.0.0.1:3129;".to_owned(), format!("listen {host}{inner};")));
    }
    if !wanted.cors_origins.is_empty() {
        let vary = |names: &str| format!("add_header Vary \"{names}\";");
        values.push((vary("Last-Event-ID"), vary("Last-Event-ID, Origin")));
    }
    values
}

/// The shipped `listen` line of nginx, and its replacement.
fn listen(wanted: &Nginx) -> (String, String) {
    if wanted.profile == Profile::Varnish {
        let at = wanted.listen.as_deref().unwrap_or("443");
        return ("listen 443 ssl".to_owned(), format!("listen {at} ssl"));
    }
    let Some((certificate, key)) = &wanted.tls else {
        let at = wanted.listen.as_deref().unwrap_or("80");
        return ("listen 80;".to_owned(), format!("listen {at};"));
    };
    let at = wanted.listen.as_deref().unwrap_or("443");
    let lines = format!(
        "listen {at} ssl http2;\n        ssl_certificate {certificate};\n        \
         ssl_certificate_key {key};"
    );
    ("listen 80;".to_owned(), lines)
}

/// The lines of `split_clients`: all lanes have equal shares, except for rounding.
fn split_lanes(lanes: u64) -> String {
    if lanes <= 1 {
        return "* \"\";".to_owned();
    }
    // Lane 0 takes the rest, because it also has the clients that choose no lane.
    let share = 100.0 / lanes as f64;
    let shares = (1..lanes).map(|lane| format!("{share:.2}% &lane={lane};\n        "));
    shares.chain(["* &lane=0;".to_owned()]).collect::<String>()
}

impl Profile {
    fn file(self) -> &'static str {
        match self {
            Self::Collapse => "collapse.conf",
            Self::Stream => "stream.conf",
            Self::Varnish => "varnish.conf",
            Self::Squid => "squid.conf",
        }
    }
}

fn nginx_include(line: &str) -> Option<&'static str> {
    let name = line.strip_prefix("include ")?.strip_suffix(';')?;
    NGINX_PARTS.iter().find(|(part, _)| *part == name).map(|(_, text)| *text)
}
