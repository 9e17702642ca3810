//! What AWS puts around a Lambda function: the HTTP API, the table stream, the queue and the schedule, on one machine.
//!
//! Each makes the very JSON that AWS makes and reads the function's answer as AWS reads it, so a function is
//! plugged in by one closure and runs the code that is deployed.

mod filter;
mod gateway;
mod http_event;
mod queue;
mod schedule;
mod stream;
mod stream_event;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;

pub use filter::Pattern;
pub use gateway::{Gateway, GatewayRoute};
pub use http_event::{HttpRequest, request_event};
pub use queue::{QueueDriver, QueueSource};
pub use schedule::{ScheduleDriver, ScheduledInvocation, schedule_event};
pub use stream::{StreamDriver, StreamSource};

/// A function: an event in, an answer or the function's error out.
pub type Handler = Arc<dyn Fn(Value) -> BoxFuture<'static, anyhow::Result<Value>> + Send + Sync>;

/// Makes a [`Handler`] of an async closure.
pub fn handler<F, Answer>(function: F) -> Handler
where
    F: Fn(Value) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = anyhow::Result<Value>> + Send + 'static,
{
    Arc::new(move |event| Box::pin(function(event)))
}

/// One invocation. It runs to its end even if nobody waits for it any more, as on Lambda; a panic or the
/// time limit ends it with an error.
async fn invoke(handler: &Handler, event: Value, limit: Option<Duration>) -> anyhow::Result<Value> {
    let invocation = handler(event);
    let limited = async move {
        match limit {
            None => invocation.await,
            Some(limit) => tokio::time::timeout(limit, invocation)
                .await
                .map_err(|_| anyhow::anyhow!("the function did not answer within {limit:?}"))?,
        }
    };
    // The panic itself has been printed by the panic hook.
    tokio::spawn(limited)
        .await
        .map_err(|_| anyhow::anyhow!("the function panicked"))?
}

#[cfg(test)]
mod tests;
