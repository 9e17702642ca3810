//! Four times a day: do the pages' tokens work, and do the pages send their events to the app?

use std::time::Duration;

use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde_json::Value;
use shared::clients::graph::app::AppSubscription;
use shared::clients::graph::{Credentials, ErrorKind, GraphApp, GraphClient, GraphError};
use shared::clock::Clock;
use shared::health::{
    HealthSettings, SUBJECT, Seen, Status, look_at_pages, subscribe_page, subscription, token,
};
use shared::outbox::{Kind, Outbox, OutboxItem, Reason};
use shared::secrets::{MetaSecret, Secret};
use shared::store::StoreError;
use shared::telemetry;

use crate::effect::Task;
use crate::settle::{Outcome, Outcomes};

/// A check is planned once in so many seconds.
const PERIOD: i64 = 6 * 3600;

/// Checks the app and its pages at Meta.
pub(crate) struct HealthWorker {
    pub(crate) outbox: Outbox,
    pub(crate) meta: Secret<MetaSecret>,
    pub(crate) graph: GraphClient,
    pub(crate) settings: HealthSettings,
    pub(crate) clock: Clock,
}

impl HealthWorker {
    /// Plans the check of the six hours that `now` is in. `false` if it was planned before.
    ///
    /// # Errors
    ///
    /// The table cannot be written.
    pub(crate) async fn plan(&self, now: Timestamp) -> Result<bool, StoreError> {
        let item = OutboxItem {
            subject: SUBJECT.to_owned(),
            event_key: format!("{:012}", now.as_second().div_euclid(PERIOD)),
            kind: Kind::HealthCheck,
            payload: Value::Null,
            not_before: None,
        };
        self.outbox.add(&item).await
    }

    /// One check serves all that are due. One that is not over at `until` begins anew with the next run.
    pub(crate) async fn work(&self, tasks: Vec<Task<()>>, until: Timestamp, outcomes: &Outcomes) {
        if tasks.is_empty() {
            return;
        }
        let left = Duration::try_from(until.duration_since(self.clock.now())).unwrap_or_default();
        let checked = tokio::time::timeout(left, Box::pin(self.check())).await;
        let outcome = checked.unwrap_or(Outcome::Busy);
        for task in tasks {
            outcomes.tell(task.entry, outcome.clone());
        }
    }

    async fn check(&self) -> Outcome {
        let meta = match self.meta.get().await {
            Ok(meta) => meta,
            Err(error) => {
                return error.into();
            }
        };
        // A stack without pages has nothing to lose; one that is not filled in has an app that Graph does not know.
        if meta.page_access_tokens.is_empty() || meta.app_secret.expose_secret().is_empty() {
            return Outcome::Done;
        }
        let app = GraphApp::new(&meta.app_id, &meta.app_secret);
        let subscriptions = self.graph.app_subscriptions(&app).await;
        let pages = look_at_pages(&self.graph, &app, &meta.page_access_tokens).await;
        let later = |error: &GraphError| error.is_retryable();
        let unanswered = |seen: &Seen| {
            let token = seen.token.as_ref().is_err_and(later);
            token || seen.subscriptions.as_ref().is_err_and(later)
        };
        if subscriptions.as_ref().is_err_and(later) || pages.iter().any(unanswered) {
            return Outcome::retry(Reason::GraphUnavailable);
        }
        self.report(&app, subscriptions.as_deref(), &pages);
        if self.settings.auto_resubscribe {
            self.subscribe_again(&app, &meta, subscriptions.as_deref().unwrap_or_default(), &pages)
                .await;
        }
        Outcome::Done
    }

    fn report(&self, app: &GraphApp, subscriptions: Result<&[AppSubscription], &GraphError>, pages: &[Seen]) {
        let now = self.clock.now();
        for seen in pages {
            let checks = [
                seen.subscription_check(&app.id, &self.settings.subscribed_fields),
                seen.token_check(&app.id, now),
            ];
            for check in checks.iter().filter(|check| check.status != Status::Ok) {
                let remedy = check.remedy.as_deref().unwrap_or_default();
                tracing::warn!(
                    check = check.name,
                    message = check.message,
                    remedy,
                    "a page is not well"
                );
            }
        }
        if let Err(error) = subscriptions {
            tracing::error!(%error, "Graph does not take the app's id and secret");
            if matches!(error.kind, ErrorKind::App | ErrorKind::TokenInvalid { .. }) {
                metrics::counter!(telemetry::CONFIGURATION_FAULTS).increment(1);
            }
        }
        // Where the app itself gets nothing, no page's subscription helps.
        let is_app_silent = subscriptions
            .is_ok_and(|all| !subscription::of_app(all).is_some_and(|subscription| subscription.is_active));
        if is_app_silent {
            tracing::error!("the app's subscription to pages is missing, or Meta has switched it off");
        }
        let unsubscribed = pages
            .iter()
            .filter(|seen| is_app_silent || seen.is_unsubscribed(&app.id))
            .count();
        #[expect(clippy::cast_precision_loss, reason = "a number of pages, and of days")]
        {
            metrics::histogram!(telemetry::PAGES_UNSUBSCRIBED).record(unsubscribed as f64);
            let facts = pages.iter().filter_map(|seen| seen.token.as_ref().ok());
            if let Some(days) = facts.filter_map(|facts| token::days_left(facts, now)).min() {
                metrics::histogram!(telemetry::TOKEN_DAYS_LEFT).record(days as f64);
            }
        }
    }

    /// Meta drops subscriptions after an hour of failures, and pages then have to be subscribed again one by one.
    async fn subscribe_again(
        &self,
        app: &GraphApp,
        meta: &MetaSecret,
        subscriptions: &[AppSubscription],
        pages: &[Seen],
    ) {
        // One that is missing has no address to take over: that is for `bridge setup`.
        if let Some(inactive) = subscription::of_app(subscriptions).filter(|one| !one.is_active) {
            match self.graph.subscribe_app(app, inactive, &meta.verify_token).await {
                Ok(()) => tracing::warn!("the app's subscription to pages is on again"),
                Err(error) => {
                    tracing::error!(%error, "the app's subscription to pages cannot be switched on");
                }
            }
        }
        for seen in pages.iter().filter(|seen| seen.is_unsubscribed(&app.id)) {
            let (page, fields) = (&seen.page_id, &self.settings.subscribed_fields);
            let credentials = Credentials {
                app,
                token: &seen.kept,
            };
            match subscribe_page(&self.graph, credentials, page, fields).await {
                Ok(refused) if refused.is_empty() => tracing::warn!(page, "the page is subscribed again"),
                Ok(refused) => {
                    tracing::warn!(
                        page,
                        ?refused,
                        "the page is subscribed again, without some fields"
                    );
                }
                Err(error) => tracing::error!(page, %error, "the page cannot be subscribed again"),
            }
        }
    }
}
