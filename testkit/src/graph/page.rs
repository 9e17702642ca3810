//! Pages, the people who look after them, and the app: what a test arranges.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::SecretString;

/// Permissions with which everything works, for Instagram too.
pub const SCOPES: [&str; 5] = [
    "pages_show_list",
    "pages_messaging",
    "pages_manage_metadata",
    "instagram_basic",
    "instagram_manage_messages",
];

/// A Facebook page. Its fields are for tests to change, through [`FakeGraph::change_page`](super::FakeGraph::change_page).
#[derive(Debug, Clone)]
pub struct Page {
    /// Page id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What people may do there.
    pub tasks: Vec<String>,
    /// Whether `me/accounts` lists it. It does not list what a Business Portfolio owns, without `business_management`.
    pub is_listed: bool,
    /// Id and name of the Instagram account that is linked to it.
    pub instagram: Option<(String, String)>,
    /// Its token.
    pub token: SecretString,
    /// What the token is good for.
    pub scopes: Vec<String>,
    /// When the token ends, in seconds since 1970; 0 = never.
    pub expires_at: i64,
    /// The subcode since the token is dead, such as 460.
    pub dead: Option<i64>,
    /// The app that the token was made for, if it is another one.
    pub foreign_app: Option<String>,
    /// Fields that it sends to each app.
    pub subscribed: BTreeMap<String, BTreeSet<String>>,
}

impl Page {
    /// A page on which everything is allowed and nothing subscribed. Its token is `EAAB-page-<id>`.
    #[must_use]
    pub fn new(id: &str, name: &str) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            tasks: [
                "ADVERTISE",
                "ANALYZE",
                "CREATE_CONTENT",
                "MANAGE",
                "MESSAGING",
                "MODERATE",
            ]
            .map(str::to_owned)
            .to_vec(),
            is_listed: true,
            instagram: None,
            token: format!("EAAB-page-{id}").into(),
            scopes: SCOPES.map(str::to_owned).to_vec(),
            expires_at: 0,
            dead: None,
            foreign_app: None,
            subscribed: BTreeMap::new(),
        }
    }

    /// The page with a linked Instagram account.
    #[must_use]
    pub fn instagram(mut self, id: &str, username: &str) -> Self {
        self.instagram = Some((id.to_owned(), username.to_owned()));
        self
    }
}

/// The owner of a user or system-user token, through [`FakeGraph::add_person`](super::FakeGraph::add_person).
#[derive(Debug, Clone)]
pub struct Person {
    /// `USER` or `SYSTEM_USER`.
    pub kind: &'static str,
    /// Whether the token lives for 60 days. Page tokens of a short one end with it.
    pub is_long_lived: bool,
    /// Pages with a role; `None` = all.
    pub pages: Option<Vec<String>>,
    /// The subcode since the token is dead.
    pub dead: Option<i64>,
    /// The app that the token was made for, if it is another one.
    pub foreign_app: Option<String>,
}

impl Person {
    /// Somebody who has just logged in, with a role on every page.
    #[must_use]
    pub fn new() -> Self {
        Self {
            kind: "USER",
            is_long_lived: false,
            pages: None,
            dead: None,
            foreign_app: None,
        }
    }

    /// The same with a role on these pages alone.
    #[must_use]
    pub fn of_pages(pages: &[&str]) -> Self {
        Self {
            pages: Some(pages.iter().map(|page| (*page).to_owned()).collect()),
            ..Self::new()
        }
    }
}

impl Default for Person {
    fn default() -> Self {
        Self::new()
    }
}

/// What the app is subscribed to, of one kind of object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Where webhooks go.
    pub callback_url: String,
    /// Whether Meta sends anything.
    pub is_active: bool,
    /// Names of fields.
    pub fields: BTreeSet<String>,
}

/// The app at Meta, through [`FakeGraph::change_app`](super::FakeGraph::change_app).
#[derive(Debug, Clone, Default)]
pub struct Application {
    /// Its subscriptions by object.
    pub subscriptions: BTreeMap<String, Subscription>,
    /// In development mode only people with a role in the app get through. No call answers it.
    pub is_in_development: bool,
    /// Whether subscriptions to Instagram are refused here, as documented.
    pub refuses_instagram: bool,
    /// Versions that have ended, such as `v19.0`.
    pub ended_versions: BTreeSet<String>,
}
