//! The HTTP client with which the fake external system calls back, and with which the fakes' own tests call them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// One client for all: connections are shared, as in the services that the fakes stand for.
pub(crate) fn client() -> &'static reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    CLIENT.get_or_init(build)
}

#[expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "this client is not the product's, has roots and a timeout of its own, and depends on nothing outside"
)]
fn build() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots: rustls::RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider's own versions are safe")
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .timeout(Duration::from_secs(30))
        // A pooled connection belongs to the runtime of the test that opened it, and dies with it.
        .pool_max_idle_per_host(0)
        .build()
        .expect("the options are constant")
}
