//! Proofs of who a person is: the link tokens that events carry, and which contact each has linked.
//!
//! A link token links one contact, the first that is stored with it. So each token has a holder, kept under the token's
//! hash until nothing can lead to its user any more: no redelivery, and no act that names a `user_ref`. While only a
//! plugin's `user_ref` is known, that is the holder, and the contact that follows from it takes over.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::contact::LinkedVia;
use super::event::{AccountLinking, Event, EventKind};
use super::link::{LEEWAY, LinkError, LinkKeys, Proven, has_the_form_of_a_token};
use crate::digest::Digest;
use crate::personal::Personal;

/// Meta delivers again for up to 36 hours.
const REDELIVERED: SignedDuration = SignedDuration::from_hours(36);

/// How long after it was shown a token may link somebody for the first time: what is known of a `user_ref` is kept that
/// long, and a person's first act follows within minutes or never.
pub(super) const KEEP_USER_REF: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A decision takes that many claims; they share a transaction with the contact, each with the condition that its user was
/// not erased.
const MOST_CLAIMS: usize = 30;

/// What became of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkCounts {
    /// Tokens that proved a user.
    pub linked: u64,
    /// `account_linking: unlinked`.
    pub unlinked: u64,
    /// References that are no tokens.
    pub plain: u64,
    /// Tokens shown after their time, or before it.
    pub expired: u64,
    /// Tokens of another key, algorithm or audience.
    pub foreign: u64,
    /// Tokens of ours without usable claims.
    pub malformed: u64,
    /// Tokens that have linked another contact.
    pub refused: u64,
}

impl LinkCounts {
    /// Adds other counts to these.
    pub fn add(&mut self, other: &Self) {
        self.linked += other.linked;
        self.unlinked += other.unlinked;
        self.plain += other.plain;
        self.expired += other.expired;
        self.foreign += other.foreign;
        self.malformed += other.malformed;
        self.refused += other.refused;
    }

    fn record(&mut self, verdict: Result<(), LinkError>) {
        *match verdict {
            Ok(()) => &mut self.linked,
            Err(LinkError::NotAToken) => &mut self.plain,
            Err(LinkError::Expired | LinkError::NotYetValid) => &mut self.expired,
            Err(LinkError::BadSignature | LinkError::WrongAlgorithm | LinkError::WrongAudience) => {
                &mut self.foreign
            }
            Err(LinkError::Malformed) => &mut self.malformed,
        } += 1;
    }
}

/// A link token by its hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Token {
    /// Its SHA-256.
    pub hash: String,
    /// When its holder may be forgotten.
    pub expires_at: Timestamp,
}

/// A token that is to link `holder`, unless it has linked another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The token.
    pub token: Token,
    /// The key of the contact or `user_ref`.
    pub holder: Personal<String>,
    /// The key of the `user_ref` that it may be taken over from.
    pub user_ref: Option<Personal<String>>,
}

/// Which contact or `user_ref` holds which token, by the token's hash.
#[derive(Debug, Default)]
pub struct Holders(Personal<HashMap<String, String>>);

impl Holders {
    /// Notes a holder that is stored.
    pub fn insert(&mut self, hash: String, holder: String) {
        self.0.insert(hash, holder);
    }

    /// Takes over what was read besides.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0.0);
    }

    /// Notes a holder that is about to be stored.
    pub fn claim(&mut self, claim: &Claim) {
        self.insert(claim.token.hash.clone(), claim.holder.as_str().to_owned());
    }
}

/// What decides on tokens.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'a> {
    /// What they are checked with.
    pub keys: &'a LinkKeys,
    /// Who holds which.
    pub holders: &'a Holders,
}

/// What came of the tokens of one contact or `user_ref`.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) counts: LinkCounts,
    pub(super) claims: Vec<Claim>,
}

impl Judged {
    /// The user whom the first good token of `event` proves, if `holder` may hold it.
    pub(super) fn judge(
        &mut self,
        event: &Event,
        holder: &str,
        judge: Judge<'_>,
    ) -> Option<(Token, String, LinkedVia)> {
        let user_ref = event.user_ref_key().map(|key| key.to_string());
        let mut proof = None;
        for (text, via) in tokens_of(event) {
            match judge.keys.prove(text, event.at) {
                Ok(proven) if proof.is_none() => {
                    let token = Token::of(text, &proven, event.at);
                    if self.claim(&token, holder, user_ref.as_deref(), judge) {
                        self.counts.linked += 1;
                        proof = Some((token, proven.user_id, via));
                    }
                }
                Ok(_) => {}
                Err(error) => self.counts.record(Err(error)),
            }
        }
        proof
    }

    /// Claims a token for `holder`; `false` if another one holds it.
    pub(super) fn claim(
        &mut self,
        token: &Token,
        holder: &str,
        user_ref: Option<&str>,
        judge: Judge<'_>,
    ) -> bool {
        let held = judge.holders.0.get(&token.hash).map(String::as_str);
        if held == Some(holder) || self.claims.iter().any(|claim| claim.token.hash == token.hash) {
            return true;
        }
        let is_anothers = held.is_some_and(|held| Some(held) != user_ref);
        if is_anothers || self.claims.len() == MOST_CLAIMS {
            self.counts.refused += 1;
            return false;
        }
        self.claims.push(Claim {
            token: token.clone(),
            holder: holder.into(),
            user_ref: user_ref
                .filter(|user_ref| *user_ref != holder)
                .map(Personal::from),
        });
        true
    }
}

impl Token {
    fn of(text: &str, proven: &Proven, shown_at: Timestamp) -> Self {
        let links_until = shown_at.saturating_add(KEEP_USER_REF).unwrap_or(Timestamp::MAX);
        let links_until = links_until.max(proven.expires_at);
        Self {
            hash: hash(text),
            expires_at: links_until
                .saturating_add(LEEWAY + REDELIVERED)
                .unwrap_or(Timestamp::MAX),
        }
    }

    /// Whether an act at this time may still lead to whom the token proves: all its redeliveries find the holder.
    pub(super) fn links_at(&self, at: Timestamp) -> bool {
        at.saturating_add(REDELIVERED).unwrap_or(Timestamp::MAX) <= self.expires_at
    }
}

fn hash(text: &str) -> String {
    Digest::of(text.trim()).to_string()
}

/// Whether one of `events` carries what may be a link token: only then are the keys needed.
#[must_use]
pub fn carry_tokens(events: &[Event]) -> bool {
    tokens(events).next().is_some()
}

/// The hashes of what may be link tokens, for the holders to be read.
#[must_use]
pub fn hashes(events: &[Event]) -> Vec<String> {
    let mut hashes: Vec<String> = tokens(events).map(|(text, _)| hash(text)).collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

/// When the first of what may be link tokens was shown.
#[must_use]
pub fn first_at(events: &[Event]) -> Option<Timestamp> {
    tokens(events).map(|(_, at)| at).min()
}

/// The users whom an event's tokens prove.
pub fn users<'a>(event: &'a Event, keys: &'a LinkKeys) -> impl Iterator<Item = String> + 'a {
    let proven = tokens_of(event).filter_map(|(text, _)| keys.prove(text, event.at).ok());
    proven.map(|proven| proven.user_id)
}

/// Whether one of `events` carries a token that none of our keys has signed: they may have been rotated since.
#[must_use]
pub fn asks_for_newer_keys(events: &[Event], keys: &LinkKeys) -> bool {
    tokens(events).any(|(token, at)| keys.verify(token, at) == Err(LinkError::BadSignature))
}

fn tokens(events: &[Event]) -> impl Iterator<Item = (&str, Timestamp)> {
    events
        .iter()
        .flat_map(|event| tokens_of(event).map(|(text, _)| (text, event.at)))
        .filter(|(text, _)| has_the_form_of_a_token(text.trim()))
}

/// Where an event may carry a link token: what its kind is about, then referrals of it and beside it.
fn tokens_of(event: &Event) -> impl Iterator<Item = (&str, LinkedVia)> {
    let referrals = event
        .referrals()
        .filter_map(|referral| referral.reference.as_ref());
    let by_referral = match &event.kind {
        EventKind::Postback(_) => LinkedVia::Postback,
        EventKind::Message(_) => LinkedVia::Message,
        _ => LinkedVia::Ref,
    };
    let own = match &event.kind {
        EventKind::Optin(optin) => optin.reference.as_ref().map(|text| (text, LinkedVia::Optin)),
        EventKind::AccountLinking(AccountLinking::Linked { authorization_code }) => authorization_code
            .as_ref()
            .map(|text| (text, LinkedVia::AccountLinking)),
        _ => None,
    };
    own.into_iter()
        .chain(referrals.map(move |text| (text, by_referral)))
        .map(|(text, via)| (text.as_str(), via))
}
