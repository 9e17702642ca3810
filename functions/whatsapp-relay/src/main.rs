//! Wiring.

use lambda_http::Error;
use shared::start;
use whatsapp_relay::{App, Settings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let app = start::app("whatsapp-relay", Settings::read, App::new).await?;
    start::serve(app, App::handle).await
}
