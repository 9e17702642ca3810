//! How a function that answers HTTP requests starts, and lives.

use futures_util::future::{BoxFuture, LocalBoxFuture};
use lambda_http::{Error, Request, run, service_fn};

use crate::clients::aws::{self, Patience};
use crate::clock::Clock;
use crate::config::Env;
use crate::telemetry;
use crate::webhook::Answer;

/// Sets `function` up: logs, settings, which `read` reads, and clients of AWS. It lives as long as the process.
///
/// # Errors
///
/// The settings are not usable.
pub async fn app<S, A: 'static>(
    function: &'static str,
    read: impl FnOnce(&mut Env<'_>) -> S,
    make: impl FnOnce(S, &aws_sdk_secretsmanager::Client, &aws_sdk_dynamodb::Client, Clock) -> A,
) -> Result<&'static A, Error> {
    telemetry::init(function);
    let settings = Env::process().finish(read)?;
    let config = aws::of_function(Patience::Webhook).await;
    let secrets = aws_sdk_secretsmanager::Client::new(&config);
    let dynamodb = aws_sdk_dynamodb::Client::new(&config);
    let app = make(settings, &secrets, &dynamodb, Clock::system());
    Ok(Box::leak(Box::new(app)))
}

/// Answers requests until the process ends.
///
/// # Errors
///
/// Lambda's runtime is out of reach.
pub async fn serve<A, F>(
    app: &'static A,
    handle: impl Fn(&'static A, Request) -> F + Send + Sync + 'static,
) -> Result<(), Error>
where
    A: Sync,
    F: Future<Output = Answer> + Send + 'static,
{
    serve_boxed(Box::new(move |request| Box::pin(handle(app, request)))).await
}

type Handle = dyn Fn(Request) -> BoxFuture<'static, Answer> + Send + Sync;

/// Boxed, so that the runtime is compiled once and moves no large future: with that of `send_update` it is a twentieth of a
/// message's instructions.
fn serve_boxed(handle: Box<Handle>) -> LocalBoxFuture<'static, Result<(), Error>> {
    Box::pin(run(service_fn(move |request| {
        let answer = telemetry::measured(handle(request));
        async { Ok::<_, Error>(answer.await) }
    })))
}
