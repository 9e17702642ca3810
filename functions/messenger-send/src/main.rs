//! Wiring.

use lambda_http::Error;
use messenger_send::{App, Settings};
use shared::start;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let app = start::app("messenger-send", Settings::read, App::new).await?;
    start::serve(app, App::handle).await
}
