//! The platform behind the API: tokens, businesses and catalogs, and which rules a call meets.

use std::collections::{BTreeMap, HashMap};

use http::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::catalog::{Batching, Store};
use super::configuration;
use super::error::GraphError;
use super::faults;
use super::install::Install;
use super::messages::{self, Reach, SentMessage};
use super::options::{self, Call, Edge, Handshake, Options};
use super::page::{Application, Page, Person};
use super::parameters::Parameters;
use crate::fault::{Answer, Effect, Fault, Script};
use crate::history::{History, Refusals};
use crate::server::Incoming;
use crate::signer;

/// Whose token it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// The person's who installed the app.
    User,
    /// The app's own in the business.
    SystemUser,
    /// The partner's admin system user, for every business.
    Partner,
    /// A page's or Instagram account's; its business is the id of that.
    Page,
}

pub(super) struct Token {
    pub(super) kind: TokenKind,
    /// `None`: every business.
    pub(super) business: Option<String>,
    /// Business Manager whose install it sees; `None`: the newest of the business.
    pub(super) manager: Option<String>,
    /// The subcode to answer since the token was made invalid.
    pub(super) invalid: Option<i64>,
}

/// The app in one Business Manager of a business. The same external business id may be in several.
pub(super) struct Business {
    pub(super) manager: Option<String>,
    pub(super) install: Option<Value>,
    pub(super) configuration: Value,
    pub(super) issued: Vec<String>,
}

pub(super) struct Platform {
    pub(super) options: Options,
    pub(super) tokens: HashMap<String, Token>,
    /// The newest install last.
    pub(super) businesses: BTreeMap<String, Vec<Business>>,
    pub(super) catalogs: HashMap<String, Store>,
    pub(super) batching: Batching,
    pub(super) usage: (u32, u32),
    pub(super) install_pages: usize,
    pub(super) script: Script<Edge, Fault>,
    pub(super) calls: History<Call>,
    pub(super) refusals: Refusals,
    pub(super) tokens_issued: usize,
    pub(super) reach: HashMap<String, Reach>,
    pub(super) sent: Vec<SentMessage>,
    /// Seconds that a system user's token lives; `None`: for ever.
    pub(super) token_life: Option<u64>,
    pub(super) application: Application,
    pub(super) pages: BTreeMap<String, Page>,
    pub(super) people: HashMap<String, Person>,
    /// By app-scoped id: pages, each with the PSID there.
    pub(super) page_scoped: HashMap<String, BTreeMap<String, String>>,
}

/// Why the model refused, and whether the test had arranged it by changing the model's state.
pub(super) struct Refused {
    error: GraphError,
    arranged: bool,
}

impl Refused {
    /// Follows from the state that a test has arranged.
    pub(super) fn arranged(error: GraphError) -> Self {
        Self {
            error,
            arranged: true,
        }
    }
}

impl From<GraphError> for Refused {
    fn from(error: GraphError) -> Self {
        // Only a ceiling that the test has set asks for smaller batches, and only an item that it spoilt is refused so.
        let arranged = error == faults::reduce() || error.is_spoilt();
        Self { error, arranged }
    }
}

/// What a call asks for.
pub(super) struct Asked<'a> {
    /// Such as `v26.0`.
    pub(super) version: &'a str,
    pub(super) edge: Edge,
    /// The node before the edge: a business manager, a catalog, an app, a page. Empty for `fbe_business`.
    pub(super) node: &'a str,
}

impl<'a> Asked<'a> {
    fn read(method: &Method, path: &'a str) -> Option<Self> {
        let (version, rest) = path.strip_prefix('/')?.split_once('/')?;
        let (major, minor) = version.strip_prefix('v')?.split_once('.')?;
        major.parse::<u16>().ok()?;
        minor.parse::<u16>().ok()?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (edge, node) = match (method.as_str(), rest) {
            ("GET", "fbe_business/fbe_installs") => (Edge::Installs, ""),
            ("DELETE", "fbe_business/fbe_installs") => (Edge::Uninstall, ""),
            ("GET", "fbe_business") => (Edge::Configuration, ""),
            ("POST", "fbe_business") => (Edge::Configure, ""),
            ("GET", "me/accounts") => (Edge::Accounts, ""),
            ("GET", "oauth/access_token") => (Edge::LongLivedToken, ""),
            ("GET", "debug_token") => (Edge::DebugToken, ""),
            ("GET", node) if !node.contains('/') => (Edge::Node, node),
            (method, rest) => match (method, rest.split_once('/')?) {
                ("GET", (node, "ids_for_pages")) => (Edge::IdsForPages, node),
                ("GET", (node, "subscriptions")) => (Edge::AppSubscriptions, node),
                ("POST", (node, "subscriptions")) => (Edge::SubscribeApp, node),
                ("GET", (node, "subscribed_apps")) => (Edge::PageSubscriptions, node),
                ("POST", (node, "subscribed_apps")) => (Edge::SubscribePage, node),
                ("POST", (node, "access_token")) => (Edge::AccessToken, node),
                ("POST", (node, "messages")) => (Edge::Messages, node),
                ("POST", (node, "items_batch")) => (Edge::ItemsBatch, node),
                ("GET", (node, "check_batch_request_status")) => (Edge::BatchStatus, node),
                _ => return None,
            },
        };
        Some(Self { version, edge, node })
    }
}

impl Platform {
    pub(super) fn set_install(&mut self, install: Install) {
        let configuration = install.configuration();
        if let Some(catalog) = asset(&install.data, "catalog_id") {
            self.catalogs.entry(catalog.to_owned()).or_default();
        }
        let manager = asset(&install.data, "business_manager_id").map(str::to_owned);
        let token = Token {
            kind: TokenKind::User,
            business: Some(install.business.clone()),
            manager: manager.clone(),
            invalid: None,
        };
        self.tokens
            .insert(install.access_token.expose_secret().to_owned(), token);
        let all = self.businesses.entry(install.business).or_default();
        all.retain(|one| one.manager != manager);
        all.push(Business {
            manager,
            install: Some(install.data),
            configuration,
            issued: Vec::new(),
        });
    }

    /// The newest install of a business.
    pub(super) fn newest(&mut self, business: &str) -> Option<&mut Business> {
        self.businesses.get_mut(business)?.last_mut()
    }

    /// The install of a business that a token sees.
    fn seen(&mut self, business: &str, token: &str) -> Option<&mut Business> {
        let manager = self.tokens.get(token).and_then(|token| token.manager.clone());
        let all = self.businesses.get_mut(business)?;
        match manager {
            Some(_) => all.iter_mut().find(|one| one.manager == manager),
            None => all.last_mut(),
        }
    }

    pub(super) fn receive(&mut self, request: &Incoming, handshake: &Handshake) -> Effect {
        let asked = Asked::read(&request.method, &request.path);
        let edge = asked.as_ref().map(|asked| asked.edge);
        let parameters = Parameters::read(request);
        let (shown, token) = match &parameters {
            Ok(parameters) => (
                parameters.shown(),
                parameters.text("access_token").unwrap_or_default(),
            ),
            Err(_) => (Map::new(), String::new()),
        };
        let fault = edge.and_then(|edge| self.script.next(edge));
        let (mut items, mut error_code) = (0, None);
        let mut process = || {
            let result = match (&asked, &parameters) {
                (None, _) => {
                    let message = format!("Unknown path components: {}", request.path);
                    Err(GraphError::new(2500, &message).into())
                }
                (_, Err(error)) => Err(error.clone().into()),
                (Some(asked), Ok(parameters)) => match self.set_up(asked, parameters, handshake) {
                    Ok(None) => self.process(asked, parameters, &mut items),
                    Ok(Some(body)) => Ok(Answer::json(200, &body)),
                    Err(refused) => Err(refused),
                },
            };
            let answer = result.unwrap_or_else(|refused| {
                error_code = Some(refused.error.code());
                let answer = refused.error.answer();
                if !refused.arranged {
                    let body = String::from_utf8_lossy(&answer.body);
                    self.refusals
                        .push(format!("{} {}: {body}", request.method, request.path));
                }
                answer
            });
            self.with_usage(answer, asked.as_ref().map_or("", |asked| asked.node))
        };
        let effect = match fault {
            None => Effect::of(process()),
            Some(fault) => fault.play(process),
        };
        self.calls.push(Call {
            edge,
            path: request.path.clone(),
            parameters: shown,
            access_token: token.into(),
            items,
            status: effect.answer.as_ref().map(|answer| answer.status),
            error_code,
            received_at: Instant::now(),
        });
        effect
    }

    fn with_usage(&self, answer: Answer, node: &str) -> Answer {
        let (percent, minutes) = self.usage;
        let answer = answer.header(options::APP_USAGE_HEADER, options::app_usage(percent));
        if node.is_empty() {
            return answer;
        }
        answer.header(
            options::BUSINESS_USAGE_HEADER,
            options::business_usage(node, percent, minutes),
        )
    }

    fn process(
        &mut self,
        asked: &Asked<'_>,
        parameters: &Parameters<'_>,
        items: &mut usize,
    ) -> Result<Answer, Refused> {
        let token = self.check_token(parameters)?;
        self.check_proof(asked.edge, &token, parameters)?;
        let body = match asked.edge {
            Edge::ItemsBatch | Edge::BatchStatus => self.catalog(asked, &token, parameters, items)?,
            Edge::AccessToken => self.exchange(asked.node, &token, parameters)?,
            Edge::Messages => self.message(asked.node, &token, parameters)?,
            _ => self.business(asked.edge, &token, parameters)?,
        };
        Ok(Answer::json(200, &body))
    }

    fn message(&mut self, sender: &str, token: &str, parameters: &Parameters<'_>) -> Result<Value, Refused> {
        let owner = self.tokens.get(token).and_then(|token| token.business.clone());
        if owner.is_some_and(|owner| owner != sender && sender != "me") {
            return Err(GraphError::no_object("post", sender).into());
        }
        let reach = |person: &str| self.reach.get(person).copied().unwrap_or_default();
        let sent = messages::send(sender, parameters, reach, self.sent.len());
        let sent = sent.map_err(|(error, arranged)| Refused { error, arranged })?;
        let answer = sent.answer();
        self.sent.push(sent);
        Ok(answer)
    }

    fn check_token(&self, parameters: &Parameters<'_>) -> Result<String, Refused> {
        let token = parameters
            .text("access_token")
            .ok_or_else(|| GraphError::new(104, "An access token is required to request this resource."))?;
        match self.tokens.get(&token) {
            Some(Token {
                invalid: Some(subcode),
                ..
            }) => Err(Refused {
                error: GraphError::token(Some(*subcode)),
                arranged: true,
            }),
            None if !self.options.any_token => Err(GraphError::token(None).into()),
            _ => Ok(token),
        }
    }

    /// A proof that is sent must be right on every call.
    pub(super) fn check_proof(
        &self,
        edge: Edge,
        token: &str,
        parameters: &Parameters<'_>,
    ) -> Result<(), GraphError> {
        let right = signer::appsecret_proof(self.options.app_secret.expose_secret(), token);
        match parameters.text("appsecret_proof") {
            Some(proof) if proof == right => Ok(()),
            None if edge != Edge::AccessToken && !self.options.proof_everywhere => Ok(()),
            proof => Err(GraphError::proof(proof.is_some())),
        }
    }

    fn may_act_for(&self, token: &str, business: &str) -> bool {
        match self.tokens.get(token) {
            Some(token) => token.business.as_ref().is_none_or(|own| own == business),
            None => self.options.any_token,
        }
    }

    fn business(
        &mut self,
        edge: Edge,
        token: &str,
        parameters: &Parameters<'_>,
    ) -> Result<Value, GraphError> {
        let id = parameters.required("fbe_external_business_id")?;
        if !self.may_act_for(token, &id) {
            return Err(GraphError::new(
                200,
                "(#200) This token has no permission for this business",
            ));
        }
        let pages = self.install_pages;
        match (edge, self.seen(&id, token)) {
            (Edge::Uninstall, Some(business)) => {
                business.install = None;
                Ok(json!({"success": true}))
            }
            (Edge::Installs, business) => {
                let install = business.and_then(|business| business.install.clone());
                let page: usize = parameters
                    .text("after")
                    .map_or(Ok(1), |cursor| cursor.parse())
                    .map_err(|_| GraphError::invalid("Param after is no cursor"))?;
                if page < pages {
                    // The address holds the token, so no client should follow it as it stands.
                    let paging = json!({
                        "cursors": {"before": page.to_string(), "after": (page + 1).to_string()},
                        "next": "https://graph.facebook.com/next",
                    });
                    return Ok(json!({"data": [], "paging": paging}));
                }
                Ok(json!({"data": install.into_iter().collect::<Vec<_>>()}))
            }
            (Edge::Configure, Some(business)) if business.install.is_some() => {
                let sent: Map<String, Value> = parameters.json("business_config")?;
                configuration::update(&mut business.configuration, sent)?;
                Ok(business.configuration.clone())
            }
            (Edge::Configuration, Some(business)) if business.install.is_some() => {
                let fields = parameters.text("fields");
                Ok(configuration::read(&business.configuration, fields.as_deref()))
            }
            _ => Err(GraphError::invalid(
                "No FBE installation for this fbe_external_business_id",
            )),
        }
    }

    /// The exchange of a user's token, or on behalf of a business with the partner's.
    fn exchange(
        &mut self,
        business_manager: &str,
        token: &str,
        parameters: &Parameters<'_>,
    ) -> Result<Value, GraphError> {
        if parameters.required("app_id")? != self.options.app_id {
            return Err(GraphError::invalid("Param app_id is not the app of this token"));
        }
        parameters.required("scope")?;
        let id = parameters.required("fbe_external_business_id")?;
        if self
            .tokens
            .get(token)
            .is_some_and(|token| token.kind == TokenKind::SystemUser)
        {
            return Err(GraphError::invalid(
                "this fake exchanges no token that is a system user's already",
            ));
        }
        let may = self.may_act_for(token, &id);
        let own = self.tokens.get(token).and_then(|token| token.manager.clone());
        let is_own = own.is_none_or(|own| own == business_manager);
        let manages = |business: &&mut Business| {
            let install = business.install.as_ref();
            install.and_then(|data| asset(data, "business_manager_id")) == Some(business_manager)
        };
        let all = self.businesses.get_mut(&id).into_iter().flatten();
        let business = all.filter(|_| may && is_own).find(manages);
        let business = business.ok_or_else(|| GraphError::no_object("post", business_manager))?;
        self.tokens_issued += 1;
        let issued = format!("EAAB-system-user-{}", self.tokens_issued);
        business.issued.push(issued.clone());
        let token = Token {
            kind: TokenKind::SystemUser,
            business: Some(id),
            manager: Some(business_manager.to_owned()),
            invalid: None,
        };
        self.tokens.insert(issued.clone(), token);
        let mut answer = json!({"access_token": issued, "token_type": "bearer"});
        if let (Some(seconds), Some(answer)) = (self.token_life, answer.as_object_mut()) {
            answer.insert("expires_in".to_owned(), seconds.into());
        }
        Ok(answer)
    }

    fn catalog(
        &mut self,
        asked: &Asked<'_>,
        token: &str,
        parameters: &Parameters<'_>,
        items: &mut usize,
    ) -> Result<Value, GraphError> {
        let owner = self.businesses.iter().find(|(_, all)| {
            let data = all.iter().filter_map(|business| business.install.as_ref());
            data.filter_map(|data| asset(data, "catalog_id"))
                .any(|id| id == asked.node)
        });
        let may = owner.is_none_or(|(id, _)| self.may_act_for(token, id));
        let verb = if asked.edge == Edge::ItemsBatch {
            "post"
        } else {
            "get"
        };
        let store = self.catalogs.get_mut(asked.node).filter(|_| may);
        let store = store.ok_or_else(|| GraphError::no_object(verb, asked.node))?;
        if asked.edge == Edge::BatchStatus {
            return store.batch_status(parameters);
        }
        let (answer, sent) = store.items_batch(asked.node, parameters, &self.batching)?;
        *items = sent;
        Ok(answer)
    }

    pub(super) fn add_token(&mut self, token: &str, kind: TokenKind, business: Option<&str>) {
        let business = business.map(str::to_owned);
        self.tokens.insert(
            token.to_owned(),
            Token {
                kind,
                business,
                manager: None,
                invalid: None,
            },
        );
    }

    pub(super) fn partner_token(&mut self, token: &SecretString) {
        self.add_token(token.expose_secret(), TokenKind::Partner, None);
    }
}

/// An asset's id. `"0"` and an empty text mean that there is none.
fn asset<'a>(data: &'a Value, name: &str) -> Option<&'a str> {
    data.get(name)?.as_str().filter(|id| !matches!(*id, "" | "0"))
}
