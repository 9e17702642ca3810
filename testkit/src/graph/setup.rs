//! Setting an app up: `me/accounts`, tokens, and both subscriptions.
//!
//! - App calls take the app's token `<id>|<secret>`: another one is 15 or 190. A page's calls take that page's own
//!   token: a person's is 210, a dead one 190.
//! - Subscribing the app asks the callback URL for the handshake, as Meta does, and refuses with 2200 if it fails. Fields
//!   are added to those that are there; a subscription that was switched off is on again.
//! - A page's field that needs a permission which the token lacks refuses the whole call, with 200.
//! - `debug_token` answers 200 for a dead token, with the reason inside.

use std::collections::BTreeSet;

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::error::GraphError;
use super::options::{Edge, Handshake};
use super::page::{Page, Person, SCOPES, Subscription};
use super::parameters::Parameters;
use super::platform::{Asked, Platform, Refused};
use crate::client::client;
use crate::server::Incoming;

/// Fields of a page that the fake knows; a field that is not among them is refused.
const FIELDS: [&str; 19] = [
    "feed",
    "inbox_labels",
    "message_deliveries",
    "message_echoes",
    "message_edits",
    "message_reactions",
    "message_reads",
    "message_template_status_update",
    "messages",
    "messaging_account_linking",
    "messaging_customer_information",
    "messaging_feedback",
    "messaging_handovers",
    "messaging_optins",
    "messaging_optouts",
    "messaging_policy_enforcement",
    "messaging_postbacks",
    "messaging_referrals",
    "standby",
];
const CHALLENGE: &str = "1158201444";
const DAY: i64 = 24 * 3600;
/// What ends the name of a page's token that was got with a short-lived one.
const SHORT: &str = "-short";

/// Asks the callback URL that a call names, if it is one that subscribes an app.
pub(super) async fn handshake(request: &Incoming) -> Handshake {
    if request.method != http::Method::POST || !request.path.trim_end_matches('/').ends_with("/subscriptions")
    {
        return None;
    }
    let parameters = Parameters::read(request).ok()?;
    let (url, token) = (parameters.text("callback_url")?, parameters.text("verify_token")?);
    let query = [
        ("hub.mode", "subscribe"),
        ("hub.challenge", CHALLENGE),
        ("hub.verify_token", &token),
    ];
    let answer = client().get(url).query(&query).send().await;
    Some(match answer {
        // As for a timeout: Meta says no more than curl's number.
        Err(_) => Err("curl_errno = 7".to_owned()),
        Ok(answer) if !answer.status().is_success() => Err(format!(
            "HTTP Status Code = {}; HTTP Message = {}",
            answer.status().as_u16(),
            answer.status().canonical_reason().unwrap_or_default()
        )),
        Ok(answer) => match answer.text().await {
            Ok(text) if text == CHALLENGE => Ok(()),
            Ok(text) => Err(format!(
                "Response does not match challenge, expected value=\"{CHALLENGE}\", received=\"{text}\""
            )),
            Err(_) => Err("curl_errno = 18".to_owned()),
        },
    })
}

/// Whose token it is.
enum Owner {
    App,
    Person(Person),
    Page {
        page: Page,
        is_short: bool,
    },
    /// A business's, or nobody's.
    Other,
}

impl Platform {
    /// What a call of the set-up answers; `None` for another call.
    pub(super) fn set_up(
        &mut self,
        asked: &Asked<'_>,
        parameters: &Parameters<'_>,
        handshake: &Handshake,
    ) -> Result<Option<Value>, Refused> {
        if self.application.ended_versions.contains(asked.version) {
            return Err(Refused::arranged(GraphError::new(
                2500,
                "Unknown path components: /",
            )));
        }
        let answer = match asked.edge {
            Edge::LongLivedToken => self.exchange_person(parameters),
            Edge::DebugToken => self
                .app_call(parameters)
                .and_then(|()| self.debug_token(parameters)),
            Edge::IdsForPages => self
                .app_call(parameters)
                .and_then(|()| self.ids_for_pages(asked.node)),
            Edge::AppSubscriptions | Edge::SubscribeApp => {
                self.app_call(parameters)?;
                if asked.node != self.options.app_id {
                    return Err(GraphError::no_object("get", asked.node).into());
                }
                match asked.edge {
                    Edge::AppSubscriptions => Ok(self.subscriptions()),
                    _ => self.subscribe_app(parameters, handshake),
                }
            }
            Edge::Accounts => self.accounts(asked, parameters),
            Edge::PageSubscriptions | Edge::SubscribePage => self.page_call(asked, parameters),
            Edge::Node => self.node(asked, parameters),
            _ => return Ok(None),
        };
        answer.map(Some)
    }

    fn owner(&self, token: &str) -> Owner {
        if token
            == format!(
                "{}|{}",
                self.options.app_id,
                self.options.app_secret.expose_secret()
            )
        {
            return Owner::App;
        }
        if let Some(person) = self.people.get(token) {
            return Owner::Person(person.clone());
        }
        let (long, is_short) = match token.strip_suffix(SHORT) {
            Some(long) => (long, true),
            None => (token, false),
        };
        let page = self
            .pages
            .values()
            .find(|page| page.token.expose_secret() == long);
        match page {
            Some(page) => Owner::Page {
                page: page.clone(),
                is_short,
            },
            None if self.options.any_token && !token.contains('|') && !self.tokens.contains_key(token) => {
                Owner::Person(Person::new())
            }
            None => Owner::Other,
        }
    }

    fn token(parameters: &Parameters<'_>) -> Result<String, Refused> {
        let missing = || GraphError::new(104, "An access token is required to request this resource.");
        parameters.text("access_token").ok_or_else(|| missing().into())
    }

    /// A call in the app's own name.
    fn app_call(&self, parameters: &Parameters<'_>) -> Result<(), Refused> {
        let token = Self::token(parameters)?;
        match self.owner(&token) {
            Owner::App => Ok(self.check_proof(Edge::Node, &token, parameters)?),
            // The id of an app with another secret.
            _ if token.contains('|') => Err(Refused::arranged(GraphError::new(
                190,
                "Error validating client secret.",
            ))),
            _ => {
                Err(GraphError::new(15, "(#15) This method must be called with an app access_token.").into())
            }
        }
    }

    /// Who asks; a token that is dead or ended is refused.
    fn asker(&self, parameters: &Parameters<'_>) -> Result<Owner, Refused> {
        let token = Self::token(parameters)?;
        self.check_proof(Edge::Node, &token, parameters)?;
        let owner = self.owner(&token);
        let dead = match &owner {
            Owner::Person(person) => person.dead,
            Owner::Page { page, .. } => page.dead.or_else(|| self.is_over(page.expires_at).then_some(463)),
            Owner::App => None,
            Owner::Other => return Err(Refused::arranged(GraphError::token(None))),
        };
        match dead {
            Some(subcode) => Err(Refused::arranged(GraphError::token(Some(subcode)))),
            None => Ok(owner),
        }
    }

    /// Of a person whom the app does not know, Graph says that there is no such object.
    fn ids_for_pages(&self, user_id: &str) -> Result<Value, Refused> {
        let Some(ids) = self.page_scoped.get(user_id) else {
            return Err(Refused::arranged(GraphError::no_object("get", user_id)));
        };
        let id = |(page, id): (&String, &String)| json!({"id": id, "page": {"id": page, "name": "A page"}});
        let data: Vec<Value> = ids.iter().map(id).collect();
        Ok(json!({"data": data, "paging": {"cursors": {"before": "MA", "after": "MQ"}}}))
    }

    fn is_over(&self, expires_at: i64) -> bool {
        expires_at != 0 && expires_at <= self.options.clock.now().as_second()
    }

    fn in_days(&self, days: i64) -> i64 {
        self.options.clock.now().as_second() + days * DAY
    }

    fn exchange_person(&mut self, parameters: &Parameters<'_>) -> Result<Value, Refused> {
        if parameters.required("grant_type")? != "fb_exchange_token" {
            return Err(GraphError::invalid("this fake exchanges by fb_exchange_token alone").into());
        }
        let (id, secret) = (
            parameters.required("client_id")?,
            parameters.required("client_secret")?,
        );
        if id != self.options.app_id || secret != self.options.app_secret.expose_secret() {
            return Err(Refused::arranged(GraphError::new(
                1,
                "Error validating client secret.",
            )));
        }
        let token = parameters.required("fb_exchange_token")?;
        match self.owner(&token) {
            Owner::Person(person) if person.dead.is_some() => {
                Err(Refused::arranged(GraphError::token(person.dead)))
            }
            Owner::Person(person) => {
                self.tokens_issued += 1;
                let issued = format!("EAAB-long-lived-{}", self.tokens_issued);
                let person = Person {
                    is_long_lived: true,
                    ..person
                };
                self.people.insert(issued.clone(), person);
                Ok(json!({"access_token": issued, "token_type": "bearer", "expires_in": 60 * DAY}))
            }
            _ => Err(Refused::arranged(GraphError::token(None))),
        }
    }

    fn debug_token(&self, parameters: &Parameters<'_>) -> Result<Value, Refused> {
        let token = parameters.required("input_token")?;
        let own_app = &self.options.app_id;
        let error = |subcode: Option<i64>| match subcode {
            None => json!({"code": 190, "message": "Invalid OAuth access token - Cannot parse access token"}),
            Some(subcode) => {
                let message = match subcode {
                    460 => "The session has been invalidated because the user changed the password.",
                    463 => "Session has expired.",
                    _ => "The session is no longer valid.",
                };
                json!({"code": 190, "message": format!("Error validating access token: {message}"), "subcode": subcode})
            }
        };
        let dead = |kind: Option<&str>, subcode| match kind {
            Some(kind) => {
                json!({"data": {"error": error(subcode), "app_id": own_app, "type": kind, "is_valid": false, "scopes": []}})
            }
            None => json!({"data": {"error": error(subcode), "is_valid": false, "scopes": []}}),
        };
        Ok(match self.owner(&token) {
            Owner::Person(Person {
                dead: Some(subcode),
                kind,
                ..
            }) => dead(Some(kind), Some(subcode)),
            Owner::Person(person) => {
                let expires_at = match (person.kind, person.is_long_lived) {
                    ("SYSTEM_USER", _) => 0,
                    (_, true) => self.in_days(60),
                    _ => self.in_days(0) + 2 * 3600,
                };
                json!({"data": {"app_id": person.foreign_app.as_ref().unwrap_or(own_app), "type": person.kind,
                    "application": "Example App", "expires_at": expires_at, "data_access_expires_at": self.in_days(90),
                    "is_valid": true, "scopes": SCOPES, "user_id": "1020304050"}})
            }
            Owner::Page { page, is_short } => {
                let ended = self.is_over(page.expires_at).then_some(463);
                if let Some(subcode) = page.dead.or(ended) {
                    return Ok(dead(Some("PAGE"), Some(subcode)));
                }
                let expires_at = if is_short {
                    self.in_days(0) + 2 * 3600
                } else {
                    page.expires_at
                };
                json!({"data": {"app_id": page.foreign_app.as_ref().unwrap_or(own_app), "type": "PAGE",
                    "application": "Example App", "expires_at": expires_at, "data_access_expires_at": self.in_days(90),
                    "is_valid": true, "profile_id": page.id, "scopes": page.scopes, "user_id": "1020304050"}})
            }
            Owner::App => {
                json!({"data": {"app_id": own_app, "type": "APP", "application": "Example App", "is_valid": true, "scopes": []}})
            }
            Owner::Other => dead(None, None),
        })
    }

    fn may_see(person: &Person, page: &Page) -> bool {
        person.pages.as_ref().is_none_or(|pages| pages.contains(&page.id))
    }

    /// A page as a person sees it.
    fn shown(page: &Page, person: &Person) -> Value {
        let mut seen =
            json!({"id": page.id, "name": page.name, "category": "Internet Company", "tasks": page.tasks});
        let Some(members) = seen.as_object_mut() else {
            return seen;
        };
        if !page.tasks.is_empty() {
            let end = if person.is_long_lived || person.kind == "SYSTEM_USER" {
                ""
            } else {
                SHORT
            };
            let token = format!("{}{end}", page.token.expose_secret());
            members.insert("access_token".to_owned(), token.into());
        }
        if let Some((id, username)) = &page.instagram {
            let account = json!({"id": id, "username": username});
            members.insert("instagram_business_account".to_owned(), account);
        }
        seen
    }

    fn accounts(&self, asked: &Asked<'_>, parameters: &Parameters<'_>) -> Result<Value, Refused> {
        let Owner::Person(person) = self.asker(parameters)? else {
            let message = "(#100) Tried accessing nonexisting field (accounts) on node type (Page)";
            return Err(Refused::arranged(GraphError::new(100, message)));
        };
        let number = |name: &str, default: usize| -> Result<usize, GraphError> {
            let wrong = |_| GraphError::invalid(&format!("Param {name} must be an integer"));
            parameters
                .text(name)
                .map_or(Ok(default), |text| text.parse().map_err(wrong))
        };
        let (limit, from) = (number("limit", 25)?.clamp(1, 100), number("after", 0)?);
        let all: Vec<&Page> = self
            .pages
            .values()
            .filter(|page| page.is_listed && Self::may_see(&person, page))
            .collect();
        let data: Vec<Value> = all
            .iter()
            .skip(from)
            .take(limit)
            .map(|page| Self::shown(page, &person))
            .collect();
        let end = from + data.len();
        let mut answer = json!({"data": data});
        if end < all.len()
            && let Some(members) = answer.as_object_mut()
        {
            // As at Meta, the address holds the token.
            let token = Self::token(parameters)?;
            let next = format!(
                "https://graph.facebook.com/{}/me/accounts?access_token={token}&after={end}",
                asked.version
            );
            let paging =
                json!({"cursors": {"before": from.to_string(), "after": end.to_string()}, "next": next});
            members.insert("paging".to_owned(), paging);
        }
        Ok(answer)
    }

    fn node(&self, asked: &Asked<'_>, parameters: &Parameters<'_>) -> Result<Value, Refused> {
        if asked.node == self.options.app_id {
            self.app_call(parameters)?;
            return Ok(json!({"id": asked.node, "name": "Example App"}));
        }
        let owner = self.asker(parameters)?;
        let no_object = || Refused::arranged(GraphError::no_object("get", asked.node));
        let page = self.pages.get(asked.node).ok_or_else(no_object)?;
        match owner {
            Owner::Person(person) if Self::may_see(&person, page) => Ok(Self::shown(page, &person)),
            Owner::Page { page: own, .. } if own.id == page.id => {
                Ok(json!({"id": page.id, "name": page.name}))
            }
            _ => Err(no_object()),
        }
    }

    fn subscriptions(&self) -> Value {
        let data: Vec<Value> = self
            .application
            .subscriptions
            .iter()
            .map(|(object, one)| {
                let fields: Vec<Value> =
                    one.fields.iter().map(|field| json!({"name": field, "version": "v25.0"})).collect();
                json!({"object": object, "callback_url": one.callback_url, "active": one.is_active, "fields": fields})
            })
            .collect();
        json!({"data": data})
    }

    fn subscribe_app(
        &mut self,
        parameters: &Parameters<'_>,
        handshake: &Handshake,
    ) -> Result<Value, Refused> {
        let object = parameters.required("object")?;
        let callback_url = parameters.required("callback_url")?;
        parameters.required("verify_token")?;
        let fields = parameters.required("fields")?;
        if !["page", "instagram", "user", "permissions", "application"].contains(&object.as_str()) {
            return Err(GraphError::invalid("Param object must be one of {page, instagram, user, …}").into());
        }
        if object == "instagram" && self.application.refuses_instagram {
            return Err(Refused::arranged(GraphError::new(
                200,
                "(#200) Permissions error",
            )));
        }
        if let Some(Err(reason)) = handshake {
            let message = format!("(#2200) Callback verification failed with the following errors: {reason}");
            return Err(Refused::arranged(GraphError::new(2200, &message)));
        }
        let subscriptions = &mut self.application.subscriptions;
        let subscription = subscriptions.entry(object).or_insert_with(|| Subscription {
            callback_url: String::new(),
            is_active: true,
            fields: BTreeSet::new(),
        });
        subscription.callback_url = callback_url;
        subscription.is_active = true;
        subscription.fields.extend(split(&fields));
        Ok(json!({"success": true}))
    }

    fn page_call(&mut self, asked: &Asked<'_>, parameters: &Parameters<'_>) -> Result<Value, Refused> {
        let app = self.options.app_id.clone();
        let Owner::Page { page: owner, .. } = self.asker(parameters)? else {
            let message = "(#210) A page access token is required to request this resource.";
            return Err(Refused::arranged(GraphError::new(210, message)));
        };
        let page = self.pages.get_mut(asked.node).filter(|page| page.id == owner.id);
        let page = page.ok_or_else(|| Refused::arranged(GraphError::no_object("get", asked.node)))?;
        if asked.edge == Edge::PageSubscriptions {
            let data: Vec<Value> = page
                .subscribed
                .iter()
                .map(|(app, fields)| {
                    json!({"category": "Business", "name": "Example App", "id": app, "subscribed_fields": fields})
                })
                .collect();
            return Ok(json!({"data": data}));
        }
        let missing = || GraphError::new(100, "(#100) The parameter subscribed_fields is required.");
        let fields = parameters.text("subscribed_fields").ok_or_else(missing)?;
        let fields: BTreeSet<String> = split(&fields).collect();
        if let Some(unknown) = fields.iter().find(|field| !FIELDS.contains(&field.as_str())) {
            let known = FIELDS.join(", ");
            let message =
                format!("(#100) Param subscribed_fields[0] must be one of {{{known}}} - got \"{unknown}\"");
            return Err(Refused::arranged(GraphError::new(100, &message)));
        }
        let may = |task: &str| page.tasks.iter().any(|own| own == task);
        if !["CREATE_CONTENT", "MANAGE", "MODERATE"].into_iter().any(may) {
            let message = "(#200) The user has no task on the page that allows this";
            return Err(Refused::arranged(GraphError::new(200, message)));
        }
        for field in &fields {
            let scope = if field.starts_with("messag") {
                "pages_messaging"
            } else {
                "pages_manage_metadata"
            };
            for scope in [scope, "pages_manage_metadata"] {
                if !page.scopes.iter().any(|own| own == scope) {
                    let message = format!(
                        "(#200) To subscribe to the {field} field, one of these permissions is needed: {scope}"
                    );
                    return Err(Refused::arranged(GraphError::new(200, &message)));
                }
            }
        }
        page.subscribed.entry(app).or_default().extend(fields);
        Ok(json!({"success": true}))
    }
}

fn split(list: &str) -> impl Iterator<Item = String> {
    list.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}
