//! Asks Graph about every page that a token is kept for.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use super::check::Check;
use super::{subscription, token};
use crate::clients::graph::app::{PageSubscription, TokenFacts};
use crate::clients::graph::{Credentials, GraphApp, GraphClient, GraphError};

/// Pages that are asked about at once.
const AT_ONCE: usize = 8;
/// How ids of Instagram accounts begin.
const INSTAGRAM_ID: &str = "17841";
/// How tokens of Instagram Login begin, which graph.facebook.com does not know.
const INSTAGRAM_LOGIN: &str = "IG";

/// What Graph said about a page.
#[derive(Debug)]
pub struct Seen {
    /// The page.
    pub page_id: String,
    /// Instagram accounts for which the same token is kept.
    pub instagram: Vec<String>,
    /// The token that is kept.
    pub kept: SecretString,
    /// What it is.
    pub token: Result<TokenFacts, GraphError>,
    /// The apps that the page sends its events to.
    pub subscriptions: Result<Vec<PageSubscription>, GraphError>,
}

impl Seen {
    /// Whether the page is known not to send its events to the app.
    #[must_use]
    pub fn is_unsubscribed(&self, app_id: &str) -> bool {
        let subscriptions = self.subscriptions.as_deref();
        subscriptions.is_ok_and(|all| subscription::of_page(all, app_id).is_none())
    }

    /// `page_subscription:<page>`
    #[must_use]
    pub fn subscription_check(&self, app_id: &str, wanted: &[String]) -> Check {
        subscription::page_subscription(&self.page_id, self.subscriptions.as_deref(), app_id, wanted)
    }

    /// `page_token:<page>`
    #[must_use]
    pub fn token_check(&self, app_id: &str, now: Timestamp) -> Check {
        token::page_token(&self.page_id, self.token.as_ref(), app_id, &self.instagram, now)
    }
}

/// Asks about all `tokens`, which are kept by page id and by Instagram account id. Changes nothing. In the order of the
/// pages' ids; tokens of Instagram Login are left out, since this host does not know them.
pub async fn look_at_pages<S: BuildHasher + Sync>(
    graph: &GraphClient,
    app: &GraphApp,
    tokens: &HashMap<String, SecretString, S>,
) -> Vec<Seen> {
    let mut accounts: BTreeMap<&str, (SecretString, Vec<String>)> = BTreeMap::new();
    for (id, token) in tokens {
        if !token.expose_secret().starts_with(INSTAGRAM_LOGIN) {
            let account = accounts.entry(token.expose_secret());
            account
                .or_insert_with(|| (token.clone(), Vec::new()))
                .1
                .push(id.clone());
        }
    }
    let accounts: Vec<(SecretString, Vec<String>)> = accounts.into_values().collect();
    let looking = accounts
        .into_iter()
        .map(|(token, ids)| look_at(graph, app, token, ids));
    let mut seen: Vec<Seen> = stream::iter(looking).buffer_unordered(AT_ONCE).collect().await;
    seen.sort_by(|one, other| one.page_id.cmp(&other.page_id));
    seen
}

async fn look_at(graph: &GraphClient, app: &GraphApp, kept: SecretString, mut ids: Vec<String>) -> Seen {
    let token = graph.debug_token(app, &kept).await;
    // A linked page and account share a token, and Graph says which of the ids is the page.
    let profile = token.as_ref().ok().and_then(|facts| facts.profile_id.clone());
    ids.sort_by_key(|id| {
        (
            Some(id) != profile.as_ref(),
            id.starts_with(INSTAGRAM_ID),
            id.clone(),
        )
    });
    let mut ids = ids.into_iter();
    let page_id = ids.next().unwrap_or_default();
    let credentials = Credentials { app, token: &kept };
    let subscriptions = graph.subscribed_apps(credentials, &page_id).await;
    Seen {
        page_id,
        instagram: ids.collect(),
        token,
        subscriptions,
        kept,
    }
}

/// Has a page send `fields` to the app. A field for which a permission is missing would refuse all: it is left out, and
/// given back.
///
/// # Errors
///
/// Any other refusal.
pub async fn subscribe_page(
    graph: &GraphClient,
    credentials: Credentials<'_>,
    page_id: &str,
    fields: &[String],
) -> Result<Vec<String>, GraphError> {
    let (mut fields, mut refused) = (fields.to_vec(), Vec::new());
    loop {
        let error = match graph.subscribe_page(credentials, page_id, &fields).await {
            Ok(()) => return Ok(refused),
            Err(error) => error,
        };
        let named = named_field(&error.detail).and_then(|name| fields.iter().position(|field| field == name));
        match named {
            Some(at) if error.code == Some(200) && fields.len() > 1 => refused.push(fields.remove(at)),
            _ => return Err(error),
        }
    }
}

/// The field that `(#200) To subscribe to the X field, one of these permissions is needed: …` names.
fn named_field(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("To subscribe to the ")?;
    rest.split_once(" field").map(|(field, _)| field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refused_field_is_found_in_graphs_words() {
        let message =
            "(#200) To subscribe to the messages field, one of these permissions is needed: pages_messaging";
        assert_eq!(named_field(message), Some("messages"));
        assert_eq!(named_field("(#200) Permissions error"), None);
    }
}
