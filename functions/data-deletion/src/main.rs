//! Wiring.

use data_deletion::{App, Settings};
use lambda_http::{Error, Request, run, service_fn};
use shared::clients::aws::{self, Patience};
use shared::{clock::Clock, config::Env, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init("data-deletion");
    let settings = Env::process().finish(Settings::read)?;
    let config = aws::config(Patience::Webhook).await;
    let (secrets, dynamodb) = (
        aws_sdk_secretsmanager::Client::new(&config),
        aws_sdk_dynamodb::Client::new(&config),
    );
    let app = &App::new(settings, &secrets, &dynamodb, Clock::system());
    run(service_fn(async |request: Request| {
        Ok::<_, Error>(telemetry::measured(app.handle(request)).await)
    }))
    .await
}
