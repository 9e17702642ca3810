//! The calls by which an app is set up and looked after: pages, tokens, subscriptions.
//!
//! Two of them carry a token in the URL, since Graph takes it nowhere else: the token that
//! [`GraphClient::debug_token`] asks about, and the one that [`GraphClient::long_lived_token`] exchanges.

use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::answer::{access_token, done, list, unreadable};
use super::{Credentials, GraphApp, GraphClient, GraphError};
use crate::json::{self, Scalar};

/// Pages of a list that are followed, of 100 each. More is a loop.
const MOST_PAGES: usize = 500;
/// What is asked of a page, and what is left of it where Graph refuses the linked account.
const LISTED_FIELDS: [&str; 2] = [
    "id,name,access_token,tasks,instagram_business_account{id,username}",
    "id,name,access_token,tasks",
];
/// The same of one page, which knows no tasks.
const PAGE_FIELDS: [&str; 2] = [
    "id,name,access_token,instagram_business_account{id,username}",
    "id,name,access_token",
];

/// A page that the owner of a token has a role on.
#[derive(Debug, Clone)]
pub struct Page {
    /// Page id.
    pub id: String,
    /// Its name; empty if Graph gave none.
    pub name: String,
    /// The page's own access token; `None` if the person has no task that yields one.
    pub token: Option<SecretString>,
    /// What the person may do there, in either spelling (`MESSAGING`, `PROFILE_PLUS_MESSAGING`).
    pub tasks: Vec<String>,
    /// The Instagram account that is linked to it.
    pub instagram: Option<InstagramAccount>,
}

impl Page {
    /// Whether the person has one of these tasks. A page that names none is believed.
    #[must_use]
    pub fn has_task(&self, tasks: &[&str]) -> bool {
        let has = |task: &String| {
            let plain = task.strip_prefix("PROFILE_PLUS_").unwrap_or(task);
            plain == "FULL_CONTROL" || tasks.contains(&plain)
        };
        self.tasks.is_empty() || self.tasks.iter().any(has)
    }
}

/// An Instagram account that is linked to a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstagramAccount {
    /// Account id, which its webhooks carry.
    pub id: String,
    /// Its name there; empty if Graph gave none.
    pub username: String,
}

/// What Graph says about a token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenFacts {
    /// Whether it works.
    pub is_valid: bool,
    /// The app that it was made for.
    pub app_id: Option<String>,
    /// `USER`, `PAGE`, `SYSTEM_USER`, `APP`.
    pub kind: Option<String>,
    /// Of a page token: the page.
    pub profile_id: Option<String>,
    /// Granted permissions.
    pub scopes: Vec<String>,
    /// When it ends; `None` = never.
    pub expires_at: Option<Timestamp>,
    /// When calls on the person's data end; `None` = never.
    pub data_access_expires_at: Option<Timestamp>,
    /// Why it does not work: Graph's subcode and words.
    pub error: Option<(Option<i64>, String)>,
}

/// What the app gets of one kind of object, and where it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppSubscription {
    /// `page`, `instagram` …
    pub object: String,
    /// Where webhooks go.
    pub callback_url: String,
    /// Meta switches it off after an hour of failures.
    pub is_active: bool,
    /// Names of the fields.
    pub fields: Vec<String>,
}

/// An app that a page sends its events to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageSubscription {
    /// The app.
    pub app_id: String,
    /// Names of the fields.
    pub fields: Vec<String>,
}

impl GraphApp {
    /// The app's own token, which Meta makes of its id and secret.
    #[must_use]
    pub fn token(&self) -> SecretString {
        SecretString::from(format!("{}|{}", self.id, self.secret.expose_secret()))
    }
}

impl GraphClient {
    /// The pages of the owner of a token, all of them.
    pub async fn pages(&self, credentials: Credentials<'_>) -> Result<Vec<Page>, GraphError> {
        let [all, fewer] = LISTED_FIELDS;
        match self.pages_with(credentials, all).await {
            Err(error) if refuses_a_field(&error) => self.pages_with(credentials, fewer).await,
            pages => pages,
        }
    }

    async fn pages_with(&self, credentials: Credentials<'_>, fields: &str) -> Result<Vec<Page>, GraphError> {
        let query = [("fields", fields), ("limit", "100")];
        let listed = self
            .list(credentials, &["me", "accounts"], &query, MOST_PAGES)
            .await?;
        Ok(listed.iter().filter_map(page).collect())
    }

    /// One page by its id, which the list leaves out where a Business Portfolio owns it.
    pub async fn page(&self, credentials: Credentials<'_>, page_id: &str) -> Result<Page, GraphError> {
        let ask = async |fields| {
            let request = self.authorised(Method::GET, &[page_id], credentials)?;
            self.request(request.query(&[("fields", fields)])).await
        };
        let [all, fewer] = PAGE_FIELDS;
        let answer = match ask(all).await {
            Err(error) if refuses_a_field(&error) => ask(fewer).await?,
            answer => answer?,
        };
        page(&answer).ok_or_else(|| unreadable("a page without an id"))
    }

    /// Turns a person's token, which lives for an hour or two, into one for about 60 days. Page tokens asked for with
    /// that one do not end.
    pub async fn long_lived_token(
        &self,
        app: &GraphApp,
        token: &SecretString,
    ) -> Result<SecretString, GraphError> {
        let request = self.http.get(self.url(&["oauth", "access_token"])?).query(&[
            ("grant_type", "fb_exchange_token"),
            ("client_id", &app.id),
            ("client_secret", app.secret.expose_secret()),
            ("fb_exchange_token", token.expose_secret()),
        ]);
        access_token(&self.request(request).await?)
    }

    /// What Graph knows of a token. A dead one is no error.
    pub async fn debug_token(&self, app: &GraphApp, token: &SecretString) -> Result<TokenFacts, GraphError> {
        let own = app.token();
        let request = self
            .authorised(Method::GET, &["debug_token"], Credentials { app, token: &own })?
            .query(&[("input_token", token.expose_secret())]);
        let answer = self.request(request).await?;
        match answer.get("data") {
            Some(data) if data.is_object() => Ok(token_facts(data)),
            _ => Err(unreadable("an answer without `data`")),
        }
    }

    /// The app's name: shows that id and secret belong together.
    pub async fn app_name(&self, app: &GraphApp) -> Result<String, GraphError> {
        let own = app.token();
        let request = self.authorised(Method::GET, &[&app.id], Credentials { app, token: &own })?;
        let answer = self.request(request.query(&[("fields", "id,name")])).await?;
        Ok(json::member(&answer, "name").any().unwrap_or_default())
    }

    /// What the app is subscribed to.
    pub async fn app_subscriptions(&self, app: &GraphApp) -> Result<Vec<AppSubscription>, GraphError> {
        let own = app.token();
        let credentials = Credentials { app, token: &own };
        let path = [app.id.as_str(), "subscriptions"];
        let data = self.list(credentials, &path, &[], MOST_PAGES).await?;
        let read = |subscription: &Value| {
            let text = |name: &str| json::member(subscription, name).any().unwrap_or_default();
            AppSubscription {
                object: text("object"),
                callback_url: text("callback_url"),
                is_active: json::member(subscription, "active").boolean() != Some(false),
                fields: names(subscription.get("fields")),
            }
        };
        Ok(data.iter().map(read).collect())
    }

    /// Subscribes the app. Meta asks the callback URL for the handshake before it answers; fields are added to those
    /// that are there, and a subscription that was switched off is on again.
    pub async fn subscribe_app(
        &self,
        app: &GraphApp,
        wanted: &AppSubscription,
        verify_token: &SecretString,
    ) -> Result<(), GraphError> {
        let own = app.token();
        let credentials = Credentials { app, token: &own };
        let form = [
            ("object", wanted.object.as_str()),
            ("callback_url", &wanted.callback_url),
            ("verify_token", verify_token.expose_secret()),
            ("fields", &wanted.fields.join(",")),
            ("include_values", "true"),
            ("access_token", own.expose_secret()),
            ("appsecret_proof", &credentials.proof()),
        ];
        let request = self.post(&[&app.id, "subscriptions"])?.form(&form);
        done(&self.request(request).await?)
    }

    /// The apps that a page sends its events to. Takes the page's own token.
    pub async fn subscribed_apps(
        &self,
        credentials: Credentials<'_>,
        page_id: &str,
    ) -> Result<Vec<PageSubscription>, GraphError> {
        let path = [page_id, "subscribed_apps"];
        let data = self.list(credentials, &path, &[], MOST_PAGES).await?;
        let read = |app: &Value| {
            Some(PageSubscription {
                app_id: json::member(app, "id").any()?,
                fields: names(app.get("subscribed_fields")),
            })
        };
        Ok(data.iter().filter_map(read).collect())
    }

    /// The PSIDs of the person with an app-scoped id, each with its page. Takes the app's own token. Meta answers for
    /// apps and pages of one Business Manager.
    /// <https://developers.facebook.com/docs/messenger-platform/identity/id-matching>
    pub async fn ids_for_pages(
        &self,
        app: &GraphApp,
        user_id: &str,
    ) -> Result<Vec<(String, String)>, GraphError> {
        let own = app.token();
        let credentials = Credentials { app, token: &own };
        let path = [user_id, "ids_for_pages"];
        let listed = self
            .list(credentials, &path, &[("limit", "100")], MOST_PAGES)
            .await?;
        let id = |one: &Value| {
            let page = json::member(one.get("page")?, "id").any()?;
            Some((page, json::member(one, "id").any()?))
        };
        Ok(listed.iter().filter_map(id).collect())
    }

    /// Has a page send these fields to the app. Takes the page's own token. One field that is refused refuses all, and
    /// whether the list replaces or extends the earlier one is not documented: send all.
    pub async fn subscribe_page(
        &self,
        credentials: Credentials<'_>,
        page_id: &str,
        fields: &[String],
    ) -> Result<(), GraphError> {
        let form = [
            ("subscribed_fields", fields.join(",")),
            ("access_token", credentials.token.expose_secret().to_owned()),
            ("appsecret_proof", credentials.proof()),
        ];
        let request = self.post(&[page_id, "subscribed_apps"])?.form(&form);
        done(&self.request(request).await?)
    }
}

/// One field that is unknown, or not for this token, fails the whole call.
fn refuses_a_field(error: &GraphError) -> bool {
    matches!(error.code, Some(10 | 100 | 200)) && error.subcode != Some(33)
}

/// Reads a body as each of Graph's answers, and says whether it is an error: what `fuzz/` feeds.
#[doc(hidden)]
#[must_use]
pub fn read_as_each(status: StatusCode, body: &[u8]) -> bool {
    let Ok(value) = json::read::<Value>(body) else {
        return GraphError::from_answer(status, body, None).is_retryable();
    };
    let accepted = super::answer::batch_accepted(&value);
    let finished = super::answer::batch_status(&value);
    let lists = list(value.get("data"));
    let pages = lists.iter().chain([&value]).filter_map(page);
    let facts = token_facts(value.get("data").unwrap_or(&value));
    let installs = crate::fbe::read::installs(lists);
    let read = accepted.errors.len() + finished.errors.len() + pages.count() + facts.scopes.len();
    let error = GraphError::from_answer(status, body, None);
    error.is_retryable() || read == 0 || installs.is_none()
}

fn page(value: &Value) -> Option<Page> {
    let text = |name: &str| json::member(value, name).any().unwrap_or_default();
    let token = json::member(value, "access_token").text().map(SecretString::from);
    let instagram = value.get("instagram_business_account").and_then(|account| {
        Some(InstagramAccount {
            id: json::member(account, "id").any()?,
            username: json::member(account, "username").any().unwrap_or_default(),
        })
    });
    Some(Page {
        id: json::member(value, "id").any()?,
        name: text("name"),
        token: token.filter(|token| !token.expose_secret().is_empty()),
        tasks: names(value.get("tasks")),
        instagram,
    })
}

/// A list of names, or of objects with a name.
fn names(value: Option<&Value>) -> Vec<String> {
    let name = |value: &Value| {
        let name = value.get("name").unwrap_or(value);
        Scalar::from(name).any()
    };
    list(value).iter().filter_map(name).collect()
}

fn token_facts(data: &Value) -> TokenFacts {
    let member = |name: &str| json::member(data, name);
    // 0 = never.
    let time = |name: &str| {
        let seconds = member(name).integer().filter(|seconds| *seconds > 0)?;
        Timestamp::from_second(seconds).ok()
    };
    let error = data.get("error").map(|error| {
        let number = |name: &str| json::member(error, name).integer();
        let message = json::member(error, "message").any().unwrap_or_default();
        (
            number("subcode").or_else(|| number("error_subcode")),
            super::error::shorten(&message),
        )
    });
    TokenFacts {
        is_valid: member("is_valid").boolean() == Some(true),
        app_id: member("app_id").any(),
        kind: member("type").any(),
        profile_id: member("profile_id").any(),
        scopes: names(data.get("scopes")),
        expires_at: time("expires_at"),
        data_access_expires_at: time("data_access_expires_at"),
        error,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_is_read_with_tasks_of_either_spelling() {
        let read = |tasks: Value| {
            let value = json!({"id": 12, "name": "Shop", "access_token": "EAAB_page", "tasks": tasks,
                "instagram_business_account": {"id": "178", "username": "shop"}});
            page(&value).unwrap()
        };
        let classic = read(json!(["ANALYZE", "MESSAGING"]));
        assert_eq!((classic.id.as_str(), classic.name.as_str()), ("12", "Shop"));
        assert_eq!(classic.instagram.as_ref().unwrap().id, "178");
        assert!(classic.has_task(&["MESSAGING"]) && !classic.has_task(&["MANAGE"]));
        assert!(read(json!(["PROFILE_PLUS_MESSAGING"])).has_task(&["MESSAGING"]));
        assert!(read(json!(["PROFILE_PLUS_FULL_CONTROL"])).has_task(&["MANAGE"]));
        assert!(!format!("{classic:?}").contains("EAAB"));
    }

    #[test]
    fn the_recorded_facts_of_tokens_are_read() {
        let good = token_facts(
            &json!({"app_id":"1234567890","type":"PAGE","application":"Example App","data_access_expires_at":1_803_859_200,
            "expires_at":0,"is_valid":true,"issued_at":1_796_083_200,"profile_id":"1112223334",
            "scopes":["pages_show_list","pages_messaging"],"user_id":"1020304050"}),
        );
        assert!(good.is_valid && good.expires_at.is_none() && good.data_access_expires_at.is_some());
        assert_eq!(good.profile_id.as_deref(), Some("1112223334"));
        let dead = token_facts(
            &json!({"error":{"code":190,"message":"Error validating access token: The session has been invalidated.",
            "subcode":460},"app_id":"1234567890","type":"USER","is_valid":false,"scopes":[]}),
        );
        assert!(!dead.is_valid);
        assert_eq!(dead.error.unwrap().0, Some(460));
    }

    #[test]
    fn fields_are_names_or_objects() {
        assert_eq!(
            names(Some(&json!(["a", {"name": "b", "version": "v25.0"}]))),
            ["a", "b"]
        );
    }
}
