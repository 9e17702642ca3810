//! Both subscriptions: the app's, and each page's; made, and read back.

use std::time::Duration;

use secrecy::SecretString;
use shared::clients::graph::app::{AppSubscription, PageSubscription};
use shared::clients::graph::{Credentials, GraphApp, GraphClient, GraphError};
use shared::health::settings::INSTAGRAM_FIELDS;
use shared::health::{Status, refusal, subscribe_page, subscription};

use super::tokens::Page;
use super::{Became, Steps, refused};

/// A function that holds an older verify token reads it again once a minute.
const PATIENCE: Duration = Duration::from_secs(65);
const PAUSE: Duration = Duration::from_secs(5);

/// Subscribes.
pub(super) struct Subscriber<'a> {
    pub(super) graph: &'a GraphClient,
    pub(super) app: &'a GraphApp,
    pub(super) callback_url: &'a str,
    pub(super) verify_token: SecretString,
    pub(super) fields: &'a [String],
    pub(super) dry_run: bool,
    pub(super) is_new_token: bool,
}

impl Subscriber<'_> {
    /// Subscribes what is not, and gives what is not as it should be afterwards.
    pub(super) async fn run(&self, pages: &[Page], steps: &mut Steps) -> anyhow::Result<Vec<String>> {
        let current = self.app_subscriptions().await?;
        self.app("page", self.fields, &current, steps).await?;
        if pages.iter().any(|page| page.instagram.is_some()) {
            let fields = INSTAGRAM_FIELDS.map(str::to_owned);
            // Documented as not possible, and seen to work.
            if let Err(error) = self.app("instagram", &fields, &current, steps).await {
                steps.add(
                    "app_subscription instagram",
                    Became::Left,
                    format!("{error:#}; do it {}", subscription::INSTAGRAM_BY_HAND),
                );
            }
        }
        let mut refused_fields = Vec::new();
        for page in pages {
            refused_fields.extend(self.page(page, steps).await?);
        }
        if self.dry_run {
            return Ok(Vec::new());
        }
        self.read_back(pages, &refused_fields).await
    }

    async fn app_subscriptions(&self) -> anyhow::Result<Vec<AppSubscription>> {
        let subscriptions = self.graph.app_subscriptions(self.app).await;
        subscriptions.map_err(|error| {
            refused(
                "the app's subscriptions cannot be read",
                &error,
                &refusal::of_app(&error),
            )
        })
    }

    async fn app(
        &self,
        object: &str,
        fields: &[String],
        current: &[AppSubscription],
        steps: &mut Steps,
    ) -> anyhow::Result<()> {
        let step = format!("app_subscription {object}");
        let held = current.iter().find(|one| one.object == object);
        let mut why = Vec::new();
        match held {
            None => why.push("is new".to_owned()),
            Some(held) => {
                if held.callback_url != self.callback_url {
                    why.push(format!("went to {}", held.callback_url));
                }
                if !held.is_active {
                    why.push("was switched off".to_owned());
                }
                let missing = subscription::missing(fields, &held.fields);
                if !missing.is_empty() {
                    why.push(format!("was without {}", missing.join(", ")));
                }
            }
        }
        if why.is_empty() {
            steps.add(
                &step,
                Became::Unchanged,
                format!("{} fields to {}", fields.len(), self.callback_url),
            );
            return Ok(());
        }
        let what = format!(
            "{} fields to {} ({})",
            fields.len(),
            self.callback_url,
            why.join(", ")
        );
        if self.dry_run {
            steps.add(&step, Became::Planned, what);
            return Ok(());
        }
        let wanted = AppSubscription {
            object: object.to_owned(),
            callback_url: self.callback_url.to_owned(),
            is_active: true,
            fields: fields.to_vec(),
        };
        self.subscribe_app(&wanted).await.map_err(|error| {
            refused(
                &format!("the app is not subscribed to {object}"),
                &error,
                &refusal::of_app(&error),
            )
        })?;
        steps.add(&step, Became::Done, what);
        Ok(())
    }

    async fn subscribe_app(&self, wanted: &AppSubscription) -> Result<(), GraphError> {
        let mut left = if self.is_new_token {
            PATIENCE
        } else {
            Duration::ZERO
        };
        loop {
            match self
                .graph
                .subscribe_app(self.app, wanted, &self.verify_token)
                .await
            {
                Err(error)
                    if error.code == Some(2200) && error.detail.contains("= 403") && !left.is_zero() =>
                {
                    super::progress("waiting for the stack to read the new verify token");
                    tokio::time::sleep(PAUSE).await;
                    left = left.saturating_sub(PAUSE);
                }
                result => return result,
            }
        }
    }

    fn credentials<'b>(&'b self, page: &'b Page) -> Credentials<'b> {
        Credentials {
            app: self.app,
            token: &page.token,
        }
    }

    async fn page_subscriptions(&self, page: &Page) -> anyhow::Result<Vec<PageSubscription>> {
        let subscriptions = self.graph.subscribed_apps(self.credentials(page), &page.id).await;
        subscriptions.map_err(|error| {
            let what = format!("the subscriptions of page {} cannot be read", page.id);
            refused(&what, &error, &refusal::remedy(&error))
        })
    }

    /// Gives the fields that were refused.
    async fn page(&self, page: &Page, steps: &mut Steps) -> anyhow::Result<Vec<String>> {
        let step = format!("page_subscription {}", page.id);
        let current = self.page_subscriptions(page).await?;
        let held = subscription::of_page(&current, &self.app.id);
        let held = held.map(|held| held.fields.clone()).unwrap_or_default();
        let missing = subscription::missing(self.fields, &held);
        if missing.is_empty() {
            steps.add(&step, Became::Unchanged, format!("{} fields", held.len()));
            return Ok(Vec::new());
        }
        // Whether a list replaces the earlier one is not documented, so what is there goes along.
        let mut wanted = self.fields.to_vec();
        wanted.extend(subscription::missing(&held, self.fields));
        if self.dry_run {
            steps.add(&step, Became::Planned, format!("add {}", missing.join(", ")));
            return Ok(Vec::new());
        }
        let refused_fields = subscribe_page(self.graph, self.credentials(page), &page.id, &wanted).await;
        let refused_fields = refused_fields.map_err(|error| {
            refused(
                &format!("page {} is not subscribed", page.id),
                &error,
                &refusal::remedy(&error),
            )
        })?;
        steps.add(&step, Became::Done, format!("added {}", missing.join(", ")));
        if !refused_fields.is_empty() {
            let message = format!(
                "without {}: the token lacks a permission for it; log in again and grant it",
                refused_fields.join(", ")
            );
            steps.add(&step, Became::Left, message);
        }
        Ok(refused_fields)
    }

    async fn read_back(&self, pages: &[Page], refused_fields: &[String]) -> anyhow::Result<Vec<String>> {
        let mut problems = Vec::new();
        let mut add = |check: shared::health::Check| {
            if check.status != Status::Ok {
                let remedy = check.remedy.unwrap_or_default();
                problems.push(format!("{}, read back: {} - {remedy}", check.name, check.message));
            }
        };
        let app = self.app_subscriptions().await?;
        add(subscription::app_subscription(
            Ok(&app),
            self.callback_url,
            self.fields,
            false,
        ));
        let expected = subscription::missing(self.fields, refused_fields);
        for page in pages {
            let held = self.page_subscriptions(page).await?;
            add(subscription::page_subscription(
                &page.id,
                Ok(&held),
                &self.app.id,
                &expected,
            ));
        }
        Ok(problems)
    }
}
