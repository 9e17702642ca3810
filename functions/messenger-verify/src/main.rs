//! Wiring.

use aws_sdk_secretsmanager::Client;
use lambda_http::{Error, Request, run, service_fn};
use messenger_verify::{App, Settings};
use shared::clients::aws::{self, Patience};
use shared::{clock::Clock, config::Env, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init("messenger-verify");
    let settings = Env::process().finish(Settings::read)?;
    let config = aws::of_function(Patience::Webhook).await;
    let app = &App::new(&settings, Client::new(&config), Clock::system());
    run(service_fn(async |request: Request| {
        Ok::<_, Error>(telemetry::measured(app.handle(request)).await)
    }))
    .await
}
