//! One TLS configuration, the limits of connections, and the one way to make a client for everything but [AWS](super::aws).

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};

/// How long a connection may take to stand (to AWS: without TLS). Meta gives a webhook 5 s in all, so a dead host must show soon.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Sockets die while a function is frozen; one that idled longer than this is not used again.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) static TLS: LazyLock<ClientConfig> = LazyLock::new(|| {
    // The roots are compiled in: reading the system's 150 certificates took 6 of a cold start's 10 ms.
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    #[expect(
        clippy::expect_used,
        reason = "the provider and the versions are constants; every test would fail"
    )]
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
});

/// A client that trusts the compiled-in roots, follows no redirect (a redirected POST would become a GET, and
/// a credential would travel along), and gives up on a request after `timeout`.
///
/// # Panics
///
/// Never: the configuration is constant, and a test makes a client.
#[must_use]
pub fn client(timeout: Duration) -> reqwest::Client {
    let mut tls = TLS.clone();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    #[expect(clippy::disallowed_methods, reason = "the one place where a client is made")]
    let builder = reqwest::Client::builder();
    #[expect(
        clippy::expect_used,
        reason = "fails only if the TLS configuration is of another type"
    )]
    builder
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .timeout(timeout)
        .user_agent(concat!("meta-braze-bridge/", env!("CARGO_PKG_VERSION")))
        .build()
        .expect("the client's configuration is constant")
}

/// An answer's body, or `None` if it is larger than `limit` bytes: what another party sends must not fill our memory.
///
/// # Errors
///
/// When the connection fails meanwhile.
pub async fn body(mut answer: reqwest::Response, limit: usize) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit_and_no_further() {
        let answer = || reqwest::Response::from(http::Response::new(vec![b'x'; 10]));
        assert_eq!(super::body(answer(), 10).await.unwrap(), Some(vec![b'x'; 10]));
        assert_eq!(super::body(answer(), 9).await.unwrap(), None);
    }

    #[test]
    fn a_client_can_be_made() {
        drop(super::client(std::time::Duration::from_secs(1)));
    }
}
