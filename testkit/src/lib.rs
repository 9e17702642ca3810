//! What tests, `bridge demo` and `bridge local` run against instead of the real services.
//!
//! Each fake is a server on a loopback address with a small model of the service behind it. The models check
//! what the real service checks, and refuse with its status codes, bodies and headers, so a wrong credential
//! or a malformed request is a test failure and not a surprise in production:
//!
//! - [`braze::FakeBraze`]: profiles, aliases, custom events, campaigns
//! - [`graph::FakeGraph`]: Facebook Business Extension installs, tokens, feature configuration, catalogs
//! - [`external_system::ExternalSystem`]: the brand's chatbot or agent desk, as webhook or OpenAI-compatible
//! - [`aws`]: DynamoDB, its streams and Secrets Manager, embedded; tables as [`template`] reads them from `template.yaml`
//! - [`house`]: all of these around a function, wired as the template says
//! - [`lambda`]: what calls a function: API Gateway, a table's stream, a schedule
//! - [`logged`]: what the process logs
//! - [`time`]: when tests begin, and waiting for what other tasks and processes bring about
//! - [`signer`]: what senders put on their requests: Meta's signature, Standard Webhooks, API Gateway events
//!
//! All fakes work alike. `start` gives a handle whose `url()` goes into the settings of the code under test; the
//! server lives as long as the handle. Misbehaviour is scripted with a [`fault::Fault`], once per request or until
//! cleared. Queries return plain values. When a handle is dropped it asserts that it was *drained*: that every
//! scripted fault was met, and that nothing was refused which the test did not ask about. Turn that off with
//! `Options::drained(false)` where nobody scripts anything, as in `bridge local`.
//!
//! The models hold test data and print it in full when an assertion fails; keys and tokens are redacted.

pub mod aws;
pub mod braze;
mod client;
pub mod external_system;
pub mod fault;
pub mod graph;
mod history;
pub mod house;
pub mod lambda;
pub mod logged;
pub mod partner;
mod server;
pub mod signer;
pub mod template;
pub mod time;
