//! The AWS SDK over our own HTTPS client, so that a function carries one TLS configuration, whose roots are
//! compiled in.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use ::http::Uri;
use ::http::uri::Scheme;
use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};
use aws_config::meta::region::ProvideRegion as _;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::SharedCredentialsProvider;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connect, HttpConnector as TcpConnector};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioExecutor;
use lambda_http::{Service as _, service_fn};

use super::http;
use crate::config::Env;

/// Who waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// A sender who gives us seconds (Meta: 5). DynamoDB and Secrets Manager answer in milliseconds; waiting
    /// longer than this eats the sender's time, and a 503 makes it try again.
    Webhook,
    /// Nobody. Giving up early would only repeat work that is already under way.
    Background,
}

impl Patience {
    /// One attempt, and a call with its retries.
    fn timeouts(self) -> TimeoutConfig {
        let (attempt, operation) = match self {
            Self::Webhook => (Duration::from_millis(1500), Duration::from_secs(4)),
            Self::Background => (Duration::from_secs(10), Duration::from_secs(30)),
        };
        TimeoutConfig::builder()
            .operation_attempt_timeout(attempt)
            .operation_timeout(operation)
            .build()
    }
}

/// What a function goes by: region, credentials and endpoint from the environment alone, where Lambda puts them. The SDK's other
/// sources (profiles, roles, containers) are for people: unused, they are a megabyte of the binary and a tenth of the start.
/// `AWS_ENDPOINT_URL` points everything at an emulator.
pub async fn of_function(patience: Patience) -> SdkConfig {
    let region = EnvironmentVariableRegionProvider::new().region().await;
    of_environment(&mut Env::process(), region, patience)
}

fn of_environment(env: &mut Env<'_>, region: Option<Region>, patience: Patience) -> SdkConfig {
    let credentials = EnvironmentVariableCredentialsProvider::new();
    let mut is_set = |name| env.or(name, "").eq_ignore_ascii_case("true");
    let mut builder = SdkConfig::builder()
        .behavior_version(version())
        .region(region)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .use_fips(is_set("AWS_USE_FIPS_ENDPOINT"))
        .use_dual_stack(is_set("AWS_USE_DUALSTACK_ENDPOINT"))
        .http_client(transport(Matcher::from_env(), http::IDLE_TIMEOUT))
        .retry_config(retries())
        .timeout_config(patience.timeouts())
        .stalled_stream_protection(no_streams());
    builder.set_endpoint_url(env.optional("AWS_ENDPOINT_URL"));
    builder.build()
}

/// What people go by: wherever the SDK looks.
pub async fn of_person() -> SdkConfig {
    let loader = aws_config::defaults(version())
        .http_client(transport(Matcher::from_env(), http::IDLE_TIMEOUT))
        .retry_config(retries())
        .timeout_config(Patience::Background.timeouts())
        .stalled_stream_protection(no_streams());
    Box::pin(loader.load()).await
}

fn version() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

fn retries() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(3)
}

/// A call that stalls meets its timeout.
fn no_streams() -> StalledStreamProtectionConfig {
    StalledStreamProtectionConfig::disabled()
}

/// HTTP/1.1, which DynamoDB and Secrets Manager speak; the SDK keeps the timeouts. `reqwest`, with requests of another
/// type and timers of its own, costs a tenth of a webhook's processor time more.
#[derive(Clone, Debug)]
struct Transport<C>(Client<HttpsConnector<C>, SdkBody>);

/// A transport that reaches AWS through the proxy that `proxies` name, if any. What is not encrypted is an emulator or Lambda's
/// own, and reached directly. There is no timer for the pool: a connection that idled too long is found out, and closed,
/// when the next one is asked for.
fn transport(proxies: Matcher, idle_timeout: Duration) -> impl HttpClient + HttpConnector + 'static {
    let mut tcp = TcpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(http::CONNECT_TIMEOUT));
    let proxies = Arc::new(proxies);
    let connector = service_fn(move |target: Uri| {
        let is_encrypted = target.scheme() == Some(&Scheme::HTTPS);
        let proxy = proxies.intercept(&target).filter(|_| is_encrypted);
        let mut tcp = tcp.clone();
        async move {
            let Some(proxy) = proxy else {
                return tcp.call(target).await.map_err(BoxError::from);
            };
            let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
            if let Some(credentials) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(credentials.clone());
            }
            tunnel.call(target).await.map_err(BoxError::from)
        }
    });
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(http::TLS.clone())
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    let mut builder = Client::builder(TokioExecutor::new());
    Transport(builder.pool_idle_timeout(idle_timeout).build(connector))
}

impl<C> HttpClient for Transport<C>
where
    Self: HttpConnector + Clone + 'static,
    C: Debug,
{
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl<C> HttpConnector for Transport<C>
where
    HttpsConnector<C>: Connect + Clone + Send + Sync + 'static,
    C: Debug,
{
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request
                .try_into_http1x()
                .map_err(|error| ConnectorError::user(error.into()))?;
            // The SDK retries I/O errors.
            let answer = client
                .request(request)
                .await
                .map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

    /// Gives each request this answer (none: hangs up), until as many requests came; says what was asked on each connection.
    async fn server(requests: usize, answer: &'static str) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = tokio::spawn(async move {
            let (mut connections, mut open) = (Vec::new(), requests);
            while open > 0 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = Vec::new();
                let mut heads = 0;
                while open > 0 && stream.read_buf(&mut asked).await.unwrap() > 0 {
                    let before = heads;
                    heads = String::from_utf8_lossy(&asked).matches("\r\n\r\n").count();
                    open -= heads - before;
                    if answer.is_empty() {
                        break;
                    }
                    stream
                        .write_all(answer.repeat(heads - before).as_bytes())
                        .await
                        .unwrap();
                }
                connections.push(String::from_utf8(asked).unwrap());
            }
            connections
        });
        (address, served)
    }

    async fn called(transport: &impl HttpConnector, url: &str) -> Result<u16, ConnectorError> {
        let mut request = HttpRequest::empty();
        request.set_uri(url.to_owned()).unwrap();
        let answer = transport.call(request).await?;
        let status = answer.status().as_u16();
        // The connection is free once the body is read.
        drop(answer);
        tokio::task::yield_now().await;
        Ok(status)
    }

    #[test]
    fn a_function_goes_by_its_environment() {
        let of = |pairs| of_environment(&mut Env::from_pairs(pairs), None, Patience::Webhook);
        let deployed = of(&[]);
        assert_eq!(
            (deployed.endpoint_url(), deployed.use_fips()),
            (None, Some(false))
        );
        let told = of(&[
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
            ("AWS_USE_FIPS_ENDPOINT", "true"),
            ("AWS_USE_DUALSTACK_ENDPOINT", "TRUE"),
        ]);
        assert_eq!(told.endpoint_url(), Some("http://127.0.0.1:1"));
        assert_eq!((told.use_fips(), told.use_dual_stack()), (Some(true), Some(true)));
    }

    fn no_proxy() -> Matcher {
        Matcher::builder().build()
    }

    #[tokio::test]
    async fn a_connection_is_used_again_unless_it_idled_too_long() {
        for (idle_timeout, connections) in [(Duration::from_mins(1), 1), (Duration::from_nanos(1), 2)] {
            let (address, served) = server(2, OK).await;
            let transport = transport(no_proxy(), idle_timeout);
            for _ in 0..2 {
                let answered = called(&transport, &format!("http://{address}/")).await;
                assert_eq!(answered.unwrap(), 200);
            }
            assert_eq!(served.await.unwrap().len(), connections, "{idle_timeout:?}");
        }
    }

    #[tokio::test]
    async fn a_call_without_an_answer_is_an_io_error_which_the_sdk_retries() {
        let (address, _served) = server(1, "").await;
        let answered = called(
            &transport(no_proxy(), http::IDLE_TIMEOUT),
            &format!("http://{address}/"),
        )
        .await;
        assert!(answered.unwrap_err().is_io());
    }

    #[tokio::test]
    async fn aws_is_reached_through_a_proxy_and_this_machine_directly() {
        let (address, proxied) = server(1, "HTTP/1.1 403 Forbidden\r\n\r\n").await;
        let (local, direct) = server(1, OK).await;
        let matcher = Matcher::builder()
            .all(format!("http://name:word@{address}"))
            .build();
        let transport = transport(matcher, http::IDLE_TIMEOUT);
        assert_eq!(
            called(&transport, &format!("http://{local}/")).await.unwrap(),
            200
        );
        assert_eq!(direct.await.unwrap().len(), 1);
        let refused = called(&transport, "https://dynamodb.us-east-1.amazonaws.com/").await;
        assert!(refused.unwrap_err().is_io());
        let asked = proxied.await.unwrap().concat();
        assert!(
            asked.starts_with("CONNECT dynamodb.us-east-1.amazonaws.com:443 HTTP/1.1\r\n"),
            "{asked}"
        );
        assert!(
            asked
                .to_lowercase()
                .contains("proxy-authorization: basic bmftztp3b3jk"),
            "{asked}"
        );
    }
}
