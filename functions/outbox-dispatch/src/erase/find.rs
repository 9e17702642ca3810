//! What there is of somebody: which records name them.

use std::collections::BTreeSet;

use shared::clients::graph::{ErrorKind, GraphApp, GraphClient, GraphError};
use shared::erase::order::{Found, user_name};
use shared::erase::{Counts, Target};
use shared::fbe::plan::subject;
use shared::fbe::table::Installs;
use shared::messenger::key::{Channel, ContactKey};
use shared::messenger::sync::{Profile, Stored};
use shared::messenger::table::Contacts;
use shared::outbox::{Outbox, Reason};
use shared::secrets::{MetaSecret, Secret, SecretError};
use shared::store::StoreError;
use shared::whatsapp::ConversationId;
use shared::whatsapp::table::Conversations;

use crate::settle::Outcome;

/// Where the records are.
#[derive(Debug, Clone)]
pub struct Records {
    /// Contacts, users, `user_ref`s and link tokens.
    pub contacts: Contacts,
    /// Conversations and turns.
    pub conversations: Conversations,
    /// Businesses.
    pub installs: Installs,
    /// What is still to leave, and what has left.
    pub outbox: Outbox,
}

/// Finds out what there is of somebody. Changes nothing.
pub struct Finder {
    pub(super) records: Records,
    meta: Secret<MetaSecret>,
    graph: Option<GraphClient>,
}

/// Why nobody could be looked for.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// A table does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The meta secret cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Graph does not answer for now.
    #[error(transparent)]
    Graph(GraphError),
}

impl From<FindError> for Outcome {
    fn from(error: FindError) -> Self {
        match error {
            FindError::Store(error) => error.into(),
            FindError::Secret(error) => error.into(),
            FindError::Graph(error) => {
                tracing::warn!(reason = error.reason(), "an erasure waits for Graph");
                Self::retry(Reason::GraphUnavailable)
            }
        }
    }
}

impl Finder {
    /// Looks in `records`, and asks Graph about app-scoped ids. Without Graph nobody is found by one.
    #[must_use]
    pub fn new(records: Records, meta: Secret<MetaSecret>, graph: Option<GraphClient>) -> Self {
        Self { records, meta, graph }
    }

    /// The names by which the target itself is called, found or not: what is late for it makes no new record.
    #[must_use]
    pub fn named(target: &Target) -> Found {
        let mut named = Found::default();
        match target {
            Target::User(user) => {
                named.users.push(user.as_str().to_owned());
                named.conversations.push(format!("user:{}", user.as_str()));
            }
            Target::Contact(key) => named.contacts.push(key.as_str().to_owned()),
            Target::Scoped { id, accounts } => {
                named.contacts.extend(keys(id, accounts));
            }
            Target::Conversation(id) => named.conversations.push(id.as_str().to_owned()),
            Target::Business(business) => named.businesses.push(business.clone()),
        }
        named
    }

    /// What there is of the target.
    ///
    /// # Errors
    ///
    /// [`FindError`], if it cannot be said.
    pub async fn find(&self, target: &Target) -> Result<Found, FindError> {
        let mut found = Found::default();
        match target {
            Target::User(user) => self.user(user, &mut found).await?,
            Target::Contact(key) => {
                found.contacts = self.existing(vec![key.as_str().to_owned()]).await?.into();
            }
            Target::Scoped { id, accounts } => found.contacts = self.scoped(id, accounts).await?.into(),
            Target::Conversation(id) => self.conversation(id, &mut found).await?,
            Target::Business(business) => {
                // One that cannot be read is there.
                let is_there = self.records.installs.exists(business).await?;
                if is_there || self.records.outbox.count(&subject(business), None).await? > 0 {
                    found.businesses.push(business.clone());
                }
            }
        }
        Ok(found)
    }

    /// Contacts that are linked to the user, or stand on the user's profile and are nobody else's.
    async fn user(&self, user: &str, found: &mut Found) -> Result<(), FindError> {
        let contacts = &self.records.contacts;
        let indexed = contacts.keys_of_user(user).await?;
        let (keys, user_refs): (Vec<_>, Vec<_>) = indexed
            .into_iter()
            .partition(|key| key.parse::<ContactKey>().is_ok());
        let moved = contacts.on_user(user).await?;
        let known = contacts.read(&moved, &[], &[]).await?;
        let is_theirs = |key: &&ContactKey| {
            known
                .contacts
                .get(key)
                .is_some_and(|stored| stands_on(stored, user))
        };
        let moved: Vec<String> = moved.iter().filter(is_theirs).map(ToString::to_string).collect();
        let all: BTreeSet<String> = keys.into_iter().chain(moved).collect();
        found.contacts = all.into_iter().collect::<Vec<_>>().into();
        found.user_refs = user_refs.into();
        self.conversation(&format!("user:{user}"), found).await?;
        let record = contacts.existing(&[user_name(user)]).await?;
        if !found.is_empty() || !record.is_empty() {
            found.users.push(user.to_owned());
        }
        Ok(())
    }

    async fn conversation(&self, id: &str, found: &mut Found) -> Result<(), FindError> {
        let Some(parsed) = ConversationId::parse(id) else {
            return Ok(());
        };
        let count = self.records.conversations.count(&parsed).await?;
        if count.conversations + count.turns > 0 || self.records.outbox.count(id, None).await? > 0 {
            found.conversations.push(id.to_owned());
        }
        Ok(())
    }

    /// A PSID on accounts that are given, else a PSID on any account that the meta secret knows, else an app-scoped id.
    async fn scoped(&self, id: &str, accounts: &[String]) -> Result<Vec<String>, FindError> {
        if !accounts.is_empty() {
            return self.existing(keys(id, accounts)).await;
        }
        let secret = self.meta.get().await?;
        let accounts: Vec<String> = secret.page_access_tokens.keys().cloned().collect();
        let found = self.existing(keys(id, &accounts)).await?;
        if !found.is_empty() {
            return Ok(found);
        }
        let mut theirs = Vec::new();
        let asked = self
            .graph
            .iter()
            .flat_map(|graph| apps(&secret).into_iter().map(move |app| (graph, app)));
        for (graph, app) in asked {
            match graph.ids_for_pages(&app, id).await {
                Ok(ids) => theirs.extend(ids),
                // The secret may be replaced, and the app's secret be mended: nobody is unknown because of it.
                Err(error) if error.is_retryable() || is_about_the_app(&error) => {
                    return Err(FindError::Graph(error));
                }
                // Graph knows nobody by this id, or does not say. Its words quote the id.
                Err(error) => tracing::info!(
                    reason = error.reason(),
                    "Graph does not tell the page-scoped ids of a person"
                ),
            }
        }
        let keys = theirs.into_iter().map(|(account_id, scoped_id)| {
            ContactKey::new(Channel::Messenger, account_id, scoped_id).to_string()
        });
        self.existing(keys.collect()).await
    }

    /// Those of the contacts of which there is a record or an outbox item.
    async fn existing(&self, keys: Vec<String>) -> Result<Vec<String>, FindError> {
        let recorded = self.records.contacts.existing(&keys).await?;
        let mut found = Vec::new();
        for key in keys {
            // Items without a contact are left of one that was lost.
            if recorded.contains(&key) || self.records.outbox.count(&key, None).await? > 0 {
                found.push(key);
            }
        }
        Ok(found)
    }

    /// How much there is of what was found.
    ///
    /// # Errors
    ///
    /// [`FindError`], if a table does not answer.
    pub async fn count(&self, found: &Found) -> Result<Counts, FindError> {
        let mut counts = Counts {
            contacts: self.records.contacts.existing(&found.contacts).await?.len(),
            records: found.user_refs.len(),
            ..Counts::default()
        };
        let subjects = found.contacts.iter().chain(found.conversations.iter());
        let of_businesses = found.businesses.iter().map(|business| subject(business));
        for subject in subjects.cloned().chain(of_businesses) {
            counts.outbox += self.records.outbox.count(&subject, None).await?;
        }
        for id in conversations(found) {
            counts.add(self.records.conversations.count(&id).await?);
        }
        counts.installs = found.businesses.len();
        Ok(counts)
    }
}

/// The conversations that were found.
pub(super) fn conversations(found: &Found) -> impl Iterator<Item = ConversationId> {
    let ids = found.conversations.iter();
    ids.filter_map(|id| ConversationId::parse(id))
}

fn is_about_the_app(error: &GraphError) -> bool {
    matches!(error.kind, ErrorKind::App | ErrorKind::TokenInvalid { .. })
}

/// Whether a contact is a user's.
fn stands_on(stored: &Stored, user: &str) -> bool {
    match stored.contact.user_id() {
        Some(linked) => linked == user,
        None => matches!(&stored.synced.profile, Profile::User(known) if known.as_str() == user),
    }
}

/// The keys that a scoped id may have on some accounts.
fn keys(id: &str, accounts: &[String]) -> Vec<String> {
    let both = [Channel::Messenger, Channel::Instagram];
    let keys = accounts
        .iter()
        .flat_map(|account_id| both.map(|channel| ContactKey::new(channel, account_id, id).to_string()));
    keys.collect()
}

/// The apps that a person may have removed.
fn apps(secret: &MetaSecret) -> Vec<GraphApp> {
    let own = GraphApp::new(&secret.app_id, &secret.app_secret);
    let fbe = secret.fbe.as_ref();
    let fbe = fbe.map(|app| GraphApp::new(&app.app_id, &app.app_secret));
    let apps = std::iter::once(own).chain(fbe);
    apps.filter(|app| !app.id.is_empty()).collect()
}
