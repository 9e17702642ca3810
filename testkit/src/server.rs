//! A loopback HTTP server that can also close a connection instead of answering.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::fault::{Answer, Effect};

/// No fake needs more, and none should run a machine out of memory.
const BODY_LIMIT: usize = 64 << 20;

/// A request with its body read.
pub(crate) struct Incoming {
    pub(crate) method: Method,
    /// The path as sent, without the query.
    pub(crate) path: String,
    /// The query as sent, without the question mark.
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Incoming {
    /// A header's value, if it is there and is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The token of `Authorization: Bearer …`.
    pub(crate) fn bearer(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }

    /// Whether the content type is `kind`, whatever its parameters.
    pub(crate) fn is(&self, kind: &str) -> bool {
        self.header("content-type")
            .and_then(|value| value.split(';').next())
            .is_some_and(|value| value.trim().eq_ignore_ascii_case(kind))
    }
}

/// Serves until dropped. Idle connections are closed then, so that a client's pool notices.
pub(crate) struct Server {
    address: SocketAddr,
    stopping: CancellationToken,
}

impl Server {
    /// Binds `address` (port 0 takes a free one) and gives every request to `handle`.
    pub(crate) async fn start<Handle, Handling>(address: SocketAddr, handle: Handle) -> io::Result<Self>
    where
        Handle: Fn(Incoming) -> Handling + Clone + Send + Sync + 'static,
        Handling: Future<Output = Effect> + Send,
    {
        let listener = TcpListener::bind(address).await?;
        let address = TcpListener::local_addr(&listener)?;
        let stopping = CancellationToken::new();
        let app = Router::new().fallback({
            let stopping = stopping.clone();
            move |ConnectInfo(cut): ConnectInfo<Cut>, request: Request<Body>| async move {
                tokio::select! {
                    response = answer(request, handle, &cut) => response,
                    // A silent fault must not hold up the shutdown.
                    () = stopping.cancelled() => cut.response(),
                }
            }
        });
        let app = app.into_make_service_with_connect_info::<Cut>();
        let stopped = stopping.clone().cancelled_owned();
        tokio::spawn(async move {
            // `serve` retries what goes wrong with single connections and ends only by the signal.
            drop(
                axum::serve(Cuttable(listener), app)
                    .with_graceful_shutdown(stopped)
                    .await,
            );
        });
        Ok(Self { address, stopping })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

async fn answer<Handle, Handling>(request: Request<Body>, handle: Handle, cut: &Cut) -> Response<Body>
where
    Handle: Fn(Incoming) -> Handling,
    Handling: Future<Output = Effect>,
{
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_LIMIT).await else {
        return cut.response();
    };
    let effect = handle(Incoming {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
    })
    .await;
    if !effect.delay.is_zero() {
        tokio::time::sleep(effect.delay).await;
    }
    match effect.answer.map(response) {
        Some(Ok(response)) => response,
        _ => cut.response(),
    }
}

fn response(answer: Answer) -> Result<Response<Body>, http::Error> {
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(answer.body))
}

/// Shared by a connection and its requests: once set, nothing more is written to the connection.
#[derive(Clone)]
struct Cut(Arc<AtomicBool>);

impl Cut {
    /// Closes the connection. The response is never written; hyper only has to try.
    fn response(&self) -> Response<Body> {
        self.0.store(true, Ordering::Release);
        Response::new(Body::empty())
    }
}

impl Connected<IncomingStream<'_, Cuttable>> for Cut {
    fn connect_info(stream: IncomingStream<'_, Cuttable>) -> Self {
        stream.io().cut.clone()
    }
}

struct Cuttable(TcpListener);

impl Listener for Cuttable {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Answers are small; waiting for more to send with them would only slow tests down.
        drop(stream.set_nodelay(true));
        let cut = Cut(Arc::new(AtomicBool::new(false)));
        (Connection { stream, cut }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(&self.0)
    }
}

struct Connection {
    stream: TcpStream,
    cut: Cut,
}

impl Connection {
    fn check(&self) -> io::Result<()> {
        if self.cut.0.load(Ordering::Acquire) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
