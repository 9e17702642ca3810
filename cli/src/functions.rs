//! The functions, as the local stack plugs them in: the very handlers that are deployed, one process each
//! there, one [`Handler`] each here.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_config::SdkConfig;
use jiff::SignedDuration;
use lambda_http::request::LambdaRequest;
use lambda_http::tower::ServiceExt as _;
use lambda_http::{Adapter, Context, Error, LambdaEvent, Request, service_fn};
use serde_json::Value;
use shared::clock::Clock;
use shared::config::{ConfigError, Env};
use shared::webhook::Answer;
use testkit::lambda::{Handler, handler};
use testkit::template::Function;

/// What a function is made of.
pub struct Wiring<'a> {
    /// The function as the template declares it.
    pub function: &'a Function,
    /// Its environment.
    pub environment: &'a BTreeMap<String, String>,
    /// Where its AWS is.
    pub aws: &'a SdkConfig,
    /// What it takes for the time.
    pub clock: &'a Clock,
}

/// Makes the function. `None` = there is no such binary.
///
/// # Errors
///
/// Everything that is wrong with its settings.
pub fn make(wiring: &Wiring<'_>) -> Result<Option<Handler>, ConfigError> {
    make_from(wiring, &|name| wiring.environment.get(name).cloned())
}

/// [`make`] with the environment as a function, so that a test sees what is asked for.
fn make_from(
    wiring: &Wiring<'_>,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Handler>, ConfigError> {
    let env = || Env::new(lookup);
    let secrets = aws_sdk_secretsmanager::Client::new(wiring.aws);
    let dynamodb = aws_sdk_dynamodb::Client::new(wiring.aws);
    let clock = wiring.clock.clone();
    Ok(Some(match wiring.function.binary.as_str() {
        "messenger-verify" => {
            let settings = env().finish(messenger_verify::Settings::read)?;
            let app = Arc::new(messenger_verify::App::new(&settings, secrets, clock));
            http(move |request| {
                let app = app.clone();
                async move { app.handle(request).await }
            })
        }
        "messenger-events" => {
            let settings = env().finish(messenger_events::Settings::read)?;
            let app = Arc::new(messenger_events::App::new(settings, &secrets, &dynamodb, clock));
            http(move |request| {
                let app = app.clone();
                async move { app.handle(request).await }
            })
        }
        "messenger-send" => {
            let settings = env().finish(messenger_send::Settings::read)?;
            let app = Arc::new(messenger_send::App::new(settings, &secrets, &dynamodb, clock));
            http(move |request| {
                let app = app.clone();
                async move { app.handle(request).await }
            })
        }
        "data-deletion" => {
            let settings = env().finish(data_deletion::Settings::read)?;
            let app = Arc::new(data_deletion::App::new(settings, &secrets, &dynamodb, clock));
            http(move |request| {
                let app = app.clone();
                async move { app.handle(request).await }
            })
        }
        "fbe-install-webhook" => {
            let settings = env().finish(fbe_install_webhook::Settings::read)?;
            let app = Arc::new(fbe_install_webhook::App::new(
                settings, &secrets, &dynamodb, clock,
            ));
            http(move |request| {
                let app = app.clone();
                async move { app.handle(request).await }
            })
        }
        "whatsapp-relay" => {
            let settings = env().finish(whatsapp_relay::Settings::read)?;
            let app = Arc::new(whatsapp_relay::App::new(settings, &secrets, &dynamodb, clock));
            http(move |request| {
                let app = app.clone();
                async move { app.handle(request).await }
            })
        }
        "outbox-dispatch" => {
            let settings = env().finish(outbox_dispatch::Settings::read)?;
            let queue = settings.has_queue().then(|| aws_sdk_sqs::Client::new(wiring.aws));
            let app = Arc::new(outbox_dispatch::App::new(
                settings,
                &secrets,
                &dynamodb,
                queue,
                clock.clone(),
            ));
            // On Lambda the context carries the deadline; here it follows from the template's timeout.
            let limit = SignedDuration::from_secs(wiring.function.timeout_seconds.try_into().unwrap_or(30));
            let margin = SignedDuration::from_secs(5);
            handler(move |event| {
                let (app, clock) = (app.clone(), clock.clone());
                async move {
                    let until = clock.now() + limit.max(margin) - margin;
                    app.handle_until(event, until)
                        .await
                        .map_err(anyhow::Error::from_boxed)
                }
            })
        }
        _ => return Ok(None),
    }))
}

/// A function behind the HTTP API, from the gateway's event to the gateway's answer, as `lambda_http` does it.
fn http<F, Answering>(function: F) -> Handler
where
    F: Fn(Request) -> Answering + Clone + Send + Sync + 'static,
    Answering: Future<Output = Answer> + Send + 'static,
{
    handler(move |event: Value| {
        let function = function.clone();
        async move {
            let request: LambdaRequest = serde_json::from_value(event)?;
            let service = service_fn(move |request: Request| {
                let answer = function(request);
                async move { Ok::<_, Error>(answer.await) }
            });
            let event = LambdaEvent::new(request, Context::default());
            let response = Adapter::from(service)
                .oneshot(event)
                .await
                .map_err(anyhow::Error::from_boxed)?;
            Ok(serde_json::to_value(response)?)
        }
    })
}

#[cfg(test)]
mod tests;
