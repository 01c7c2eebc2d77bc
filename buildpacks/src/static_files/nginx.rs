//! nginx's configuration.

use std::fmt::Write;

use super::Pages;
use super::settings::Settings;

/// The stack's module for Brotli. A stack that was made by an older platform has none.
pub(super) const BROTLI: &str = "/usr/lib/nginx/modules/ngx_http_brotli_filter_module.so";

/// What is compressed, besides pages.
const TEXTS: &str = "text/css text/plain text/xml text/javascript application/javascript application/json \
    application/manifest+json application/xml image/svg+xml";

/// One process serves an instance: files come from the page cache. Access lines are the router's.
const FRAME: &str = r"daemon off;
worker_processes 1;
pid /tmp/nginx.pid;
error_log stderr warn;
events { worker_connections 4096; }
http {
  include /etc/nginx/mime.types;
  types { text/javascript mjs; application/manifest+json webmanifest; }
  default_type application/octet-stream;
  charset_types text/css text/plain text/xml text/javascript application/javascript application/json;
  access_log off;
  server_tokens off;
  sendfile on;
  tcp_nopush on;
  absolute_redirect off;
  client_max_body_size 1m;
  client_body_temp_path /tmp/nginx-body;
  proxy_temp_path /tmp/nginx-proxy;
  fastcgi_temp_path /tmp/nginx-fastcgi;
  uwsgi_temp_path /tmp/nginx-uwsgi;
  scgi_temp_path /tmp/nginx-scgi;
  gzip on;
  gzip_vary on;
  gzip_proxied any;
";

/// Files whose names have a hash of their content in them never change; pages are asked for again. Builders put the former into
/// folders of their own, where a hash is any long word with a digit or an upper case letter; elsewhere only long numbers count.
const CACHING: &str = r#"  map $uri $cache_control {
    default "";
    "~\.html?$" "no-cache";
    "~[.-][0-9a-f]{8,}\.[a-z0-9.]+$" "public, max-age=31536000, immutable";
    "~^/(assets|static|_astro|_nuxt|_app/immutable|_next/static)/(.*/)?[^/]*[._-](?=[a-zA-Z_-]*[0-9A-Z])[0-9a-zA-Z_-]{8,}\.[a-z0-9.]+$" "public, max-age=31536000, immutable";
  }
  add_header Cache-Control $cache_control;
"#;

/// Files at the top of an app that are about the app, not of the site.
const PRIVATE: &str = "Procfile|Staticfile|static\\.json|app\\.json|project\\.toml|package(-lock)?\\.json";

/// The whole configuration. The port, config vars, proxies and passwords are put in at the start.
pub(super) fn configuration(settings: &Settings, root: &str, pages: &Pages, has_brotli: bool) -> String {
    let module = if has_brotli { format!("load_module {BROTLI};\n") } else { String::new() };
    let mut text = module + FRAME;
    let _ = writeln!(text, "  gzip_types {TEXTS};");
    if has_brotli {
        // As quick as gzip, and smaller by a sixth.
        let _ = writeln!(text, "  brotli on;\n  brotli_comp_level 4;\n  brotli_types {TEXTS};");
    }
    let folder = if root == "." { "/app".to_owned() } else { format!("/app/{root}") };
    let _ = writeln!(text, "  charset \"{}\";", settings.encoding.as_deref().unwrap_or("utf-8"));
    text.push_str(&headers(settings));
    let _ = write!(text, "  server {{\n    listen PORT;\n    root \"{folder}\";\n    index index.html index.htm;\n");
    text.push_str(&gates(settings));
    if let Some(page) = error_page(settings, pages) {
        let _ = writeln!(text, "    error_page 404 \"{page}\";");
    }
    text.push_str("    location ~ /\\.(?!well-known/) { return 404; }\n");
    let _ = writeln!(text, "    location ~ ^/({PRIVATE})$ {{ return 404; }}");
    for (path, proxy) in &settings.proxies {
        let _ = writeln!(
            text,
            "    PROXY \"/{}\" \"{}\"",
            with_slash(path).trim_start_matches('/'),
            with_slash(&proxy.origin)
        );
    }
    for (path, redirect) in &settings.redirects {
        let status = redirect.status.unwrap_or(301);
        let _ = writeln!(text, "    location = \"{path}\" {{ return {status} \"{}\"; }}", redirect.url);
    }
    let html = if settings.clean_urls { "$uri.html " } else { "" };
    for (path, file) in &settings.routes {
        let file = file.trim_start_matches('/');
        let _ = writeln!(text, "    location ~ \"^{}$\" {{ try_files $uri {html}$uri/ \"/{file}\"; }}", pattern(path));
    }
    if settings.is_one_page {
        // A script of an older version is not found, instead of being a page.
        text.push_str("    location ~ \"/[^/]*\\.[a-zA-Z0-9]+$\" { try_files $uri =404; }\n");
        let _ = writeln!(text, "    location / {{ try_files $uri {html}$uri/ /index.html; }}");
    } else {
        let _ = writeln!(text, "    location / {{ try_files $uri {html}$uri/ =404; }}");
    }
    text.push_str("  }\n}\n");
    text
}

/// What a request has to pass first.
fn gates(settings: &Settings) -> String {
    let mut text = String::new();
    if settings.https_only {
        // The router says how the request came to it.
        text.push_str("    if ($http_x_forwarded_proto = http) { return 301 https://$host$request_uri; }\n");
    }
    if let Some(host) = &settings.canonical_host {
        let _ = writeln!(
            text,
            "    if ($host != \"{host}\") {{ return 301 $http_x_forwarded_proto://{host}$request_uri; }}"
        );
    }
    if settings.basic_auth {
        text.push_str("    auth_basic \"Restricted\";\n    auth_basic_user_file PASSWORDS;\n");
    }
    text
}

fn with_slash(text: &str) -> String {
    format!("{}/", text.trim_end_matches('/'))
}

fn error_page(settings: &Settings, pages: &Pages) -> Option<String> {
    let named = settings.error_page.as_ref().map(|page| format!("/{}", page.trim_start_matches('/')));
    named.or_else(|| pages.has_404.then(|| "/404.html".to_owned()))
}

/// Headers depend on the path alone, so they are maps: `add_header` in a location would hide those of its server.
fn headers(settings: &Settings) -> String {
    let mut text = String::new();
    let names = settings.headers.values().flat_map(|headers| headers.keys());
    if !names.into_iter().any(|name| name.eq_ignore_ascii_case("cache-control")) {
        text.push_str(CACHING);
    }
    let all = settings
        .headers
        .iter()
        .flat_map(|(path, headers)| headers.iter().map(move |(name, value)| (path, name, value)));
    for (number, (path, name, value)) in all.enumerate() {
        let _ = writeln!(text, "  map $uri $header_{number} {{ default \"\"; \"~^{}$\" \"{value}\"; }}", pattern(path));
        let _ = writeln!(text, "  add_header \"{name}\" $header_{number} always;");
    }
    text
}

/// `*` is any part of one segment of a path, `**` anything; the rest stands for itself.
fn pattern(path: &str) -> String {
    let mut pattern = String::new();
    let mut rest = path.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '*' if rest.next_if_eq(&'*').is_some() => pattern.push_str(".*"),
            '*' => pattern.push_str("[^/]*"),
            c if c.is_alphanumeric() || "/-_~ ".contains(c) => pattern.push(c),
            c => pattern.extend(['[', c, ']']),
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_like_herokus() {
        assert_eq!(pattern("/**"), "/.*");
        assert_eq!(pattern("/assets/*.css"), "/assets/[^/]*[.]css");
    }

    fn shown(json: &str, is_one_page: bool) -> String {
        let mut settings: Settings = serde_json::from_str(json).unwrap();
        settings.is_one_page = is_one_page;
        let text = configuration(&settings, "dist", &Pages { has_404: true }, false);
        text.strip_prefix(FRAME).unwrap().to_owned()
    }

    #[test]
    fn brotli_is_used_where_the_stack_has_it() {
        let shown = |has_brotli| configuration(&Settings::default(), ".", &Pages::default(), has_brotli);
        assert!(!shown(false).contains("brotli"));
        assert!(shown(true).starts_with(&format!("load_module {BROTLI};\ndaemon off;\n")));
        assert!(shown(true).contains(&format!("  brotli on;\n  brotli_comp_level 4;\n  brotli_types {TEXTS};\n")));
    }

    #[test]
    fn a_site_with_every_setting() {
        insta::assert_snapshot!(shown(
            r#"{"clean_urls": true, "error_page": "errors/404.html", "https_only": true, "routes": {"/app/**": "index.html"},
                "redirects": {"/old": {"url": "/new", "status": 302}}, "headers": {"/**": {"X-Frame-Options": "DENY"}},
                "proxies": {"/api": {"origin": "https://${API}/v1"}}, "canonical_host": "www.example.com",
                "basic_auth": true, "encoding": "US-ASCII"}"#,
            false
        ));
    }

    #[test]
    fn a_site_that_is_one_page_and_sets_its_own_caching() {
        insta::assert_snapshot!(shown(r#"{"headers": {"/**": {"cache-control": "no-store"}}}"#, true));
    }
}
