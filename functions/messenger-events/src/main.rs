//! Wiring.

use lambda_http::Error;
use messenger_events::{App, Settings};
use shared::start;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let app = start::app("messenger-events", Settings::read, App::new).await?;
    app.warm_up().await;
    start::serve(app, App::handle).await
}
