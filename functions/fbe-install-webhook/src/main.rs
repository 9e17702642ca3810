//! Wiring.

use fbe_install_webhook::{App, Settings};
use lambda_http::Error;
use shared::start;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let app = start::app("fbe-install-webhook", Settings::read, App::new).await?;
    start::serve(app, App::handle).await
}
