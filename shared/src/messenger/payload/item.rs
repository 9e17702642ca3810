//! One item: which kind it is, who did it, when, and by which key it is told from its repetition.

use jiff::Timestamp;

use super::Context;
use super::wire::{self, Flat, Item};
use crate::digest::{self, Digest};
use crate::json::{self, Members, Object, Scalar};
use crate::messenger::event::{
    AccountLinking, Event, EventKind, Handover, Message, Optin, Optout, Payment, Person, Postback, Reaction,
    ReferralSource, event_key,
};
use crate::messenger::key::is_id;
use crate::messenger::topic::Topic;
use crate::outbox::Reason;
use crate::personal::Personal;

/// No message has more attachments that anybody would count.
const MOST_ATTACHMENTS: usize = 20;

/// Meta's titles of topics have 65 characters.
const LONGEST_TITLE: usize = 255;

/// Meta's notification tokens are numbers of some 20 digits.
const LONGEST_TOKEN: usize = 1024;

pub(super) fn read(
    item: &Item<'_>,
    raw: &str,
    standby: bool,
    context: &Context<'_>,
) -> Result<Event, Reason> {
    let kind = kind(item, raw, context)?;
    let sender = party_id(&item.sender)?;
    let recipient = party_id(&item.recipient)?;
    let from_page = matches!(kind, EventKind::Echo { .. });
    let other_side = if from_page { &sender } else { &recipient };
    let account_id = context
        .account_id
        .clone()
        .or_else(|| other_side.clone())
        .ok_or(Reason::NoAccount)?;

    // An echo is the page speaking: its person is the one spoken to.
    let (first, second) = if from_page {
        (recipient, sender)
    } else {
        (sender, None)
    };
    let by_page = first.as_ref() == Some(&account_id);
    let scoped_id = [first, second].into_iter().flatten().find(|id| *id != account_id);
    let user_ref = item
        .sender
        .get()
        .and_then(|sender| sender.user_ref.any())
        .or_else(|| item.optin.get().and_then(|optin| optin.user_ref.any()));
    #[expect(clippy::match_same_arms, reason = "the first arm holds whoever is named")]
    let person = match (&kind, scoped_id, user_ref) {
        (EventKind::AppRoles | EventKind::PolicyEnforcement { .. }, _, _) => Person::None,
        (_, Some(scoped_id), _) => Person::Scoped(scoped_id.into()),
        (_, None, Some(user_ref)) => Person::UserRef(user_ref.into()),
        // Receipts, and on Instagram edits that say no more than that there is a message.
        (
            EventKind::Echo { .. }
            | EventKind::Delivery
            | EventKind::Read
            | EventKind::Edit { .. }
            | EventKind::Unknown,
            None,
            None,
        ) => Person::None,
        // The page's own doing, in its inbox.
        (EventKind::Reaction(_) | EventKind::Handover(_), None, None) if by_page => Person::None,
        (_, None, None) => return Err(Reason::NoPerson),
    };

    let own_time = item.timestamp.time();
    let key = key(item, &kind, raw, own_time);
    let is_referral = matches!(kind, EventKind::Referral(_));
    Ok(Event {
        channel: context.channel,
        account_id,
        person,
        at: context.time(own_time),
        standby,
        kind,
        prior_user_ref: prior_user_ref(item),
        referral: referral(&item.referral).filter(|_| !is_referral),
        key: key.into(),
    })
}

/// A change of the page that is no item of a conversation: a flat object about a marketing message or a template.
pub(super) fn read_flat(
    kind: EventKind,
    flat: &Flat<'_>,
    raw: &str,
    context: &Context<'_>,
) -> Result<Event, Reason> {
    let id = |scalar: &Scalar<'_>| scalar.id().filter(|id| is_id(id) && id != "0");
    let account_id = context.account_id.clone().or_else(|| id(&flat.page_id));
    // Missing for subscribers who were won by a custom audience.
    let person = id(&flat.recipient_id).map_or(Person::None, |id| Person::Scoped(id.into()));
    let own_time = flat.timestamp.time();
    Ok(Event {
        channel: context.channel,
        account_id: account_id.ok_or(Reason::NoAccount)?,
        person,
        at: context.time(own_time),
        standby: false,
        key: event_key(kind.name(), &[&Digest::of_parts([raw]).to_string()]).into(),
        kind,
        prior_user_ref: None,
        referral: None,
    })
}

/// The id of a sender or recipient: absent is fine, nonsense is not.
fn party_id(party: &Object<wire::Party<'_>>) -> Result<Option<String>, Reason> {
    let Some(party) = party.get() else {
        return Ok(None);
    };
    if party.id.is_absent() {
        return Ok(None);
    }
    party
        .id
        .id()
        .filter(|id| is_id(id))
        .map(Some)
        .ok_or(Reason::BadId)
}

/// The order of the checks is that of Meta's keys. `referral` and `prior_message` stand beside others as well: alone, a
/// referral is a kind of its own.
fn kind(item: &Item<'_>, raw: &str, context: &Context<'_>) -> Result<EventKind, Reason> {
    if let Some(message) = object(&item.message)? {
        return Ok(message_kind(item, message, context));
    }
    if let Some(edit) = object(&item.message_edit)? {
        return Ok(EventKind::Edit {
            mid: personal(&edit.mid),
            num_edit: edit.num_edit.any(),
        });
    }
    if object(&item.delivery)?.is_some() {
        return Ok(EventKind::Delivery);
    }
    if object(&item.read)?.is_some() {
        return Ok(EventKind::Read);
    }
    if let Some(postback) = object(&item.postback)? {
        return Ok(EventKind::Postback(Postback {
            mid: personal(&postback.mid),
            payload: personal(&postback.payload),
            referral: referral(&postback.referral),
        }));
    }
    if let Some(optin) = object(&item.optin)? {
        return Ok(EventKind::Optin(Optin {
            optin_type: optin.request.any(),
            reference: personal(&optin.reference),
            user_ref: personal(&optin.user_ref),
            has_one_time_token: !optin.one_time_notif_token.is_absent(),
            is_message_request: !optin.message_request.is_absent(),
            title: cut(&optin.title, LONGEST_TITLE),
            topic: topic(optin),
            notification_status: optin.notification_messages_status.any(),
        }));
    }
    if let Some(reaction) = object(&item.reaction)? {
        return Ok(EventKind::Reaction(Reaction {
            mid: personal(&reaction.mid),
            reaction: reaction.name.any(),
            removed: !is_reaction(reaction),
        }));
    }
    if let Some(linking) = object(&item.account_linking)? {
        return Ok(EventKind::AccountLinking(match linking.status.text() {
            Some("linked") => AccountLinking::Linked {
                authorization_code: personal(&linking.authorization_code),
            },
            Some("unlinked") => AccountLinking::Unlinked,
            _ => AccountLinking::Other(linking.status.any().unwrap_or_default()),
        }));
    }
    other_kind(item, raw)
}

fn message_kind(item: &Item<'_>, message: &wire::Message<'_>, context: &Context<'_>) -> EventKind {
    let mid = personal(&message.mid);
    // A page that sends is an echo also where the flag is missing: a person's id is never the page's.
    let sender = item.sender.get().and_then(|sender| sender.id.id());
    if message.is_echo.boolean() == Some(true) || (sender.is_some() && sender == context.account_id) {
        return EventKind::Echo {
            mid,
            app_id: message.app_id.any(),
            // What is ours of that form, the outbox says.
            send_id: message
                .metadata
                .any()
                .filter(|metadata| digest::is_short(metadata)),
        };
    }
    if message.is_deleted.boolean() == Some(true) {
        return EventKind::Unsend { mid };
    }
    let attachments = message.attachments.members().iter().filter_map(Object::get);
    EventKind::Message(Message {
        mid,
        text: personal(&message.text),
        quick_reply: message
            .quick_reply
            .get()
            .and_then(|reply| personal(&reply.payload)),
        attachments: attachments
            .filter_map(|attachment| attachment.attachment_type.any())
            .take(MOST_ATTACHMENTS)
            .collect(),
        referral: referral(&message.referral),
    })
}

/// The `user_ref` under which the person ticked a checkbox plugin. Meta appends it to the answer, of whatever kind.
fn prior_user_ref(item: &Item<'_>) -> Option<Personal<String>> {
    let prior = item.prior_message.get()?;
    let is_checkbox = prior
        .source
        .text()
        .is_none_or(|source| source.eq_ignore_ascii_case("checkbox_plugin"));
    is_checkbox.then(|| personal(&prior.identifier)).flatten()
}

/// Only `react` is a reaction; of an action that is not named, the reaction itself says so.
fn is_reaction(reaction: &wire::Reaction<'_>) -> bool {
    match reaction.action.text() {
        Some(action) => action.eq_ignore_ascii_case("react"),
        None => !reaction.name.is_absent(),
    }
}

/// What an optin or opt-out says of a topic. Without a status it is an opt-in; `STOP NOTIFICATIONS` and whatever is not
/// known is none.
fn topic(optin: &wire::Optin<'_>) -> Topic {
    let status = optin.notification_messages_status.any();
    Topic {
        subscribed: status.is_none_or(|status| status.to_ascii_uppercase().starts_with("RESUME")),
        token: cut(&optin.notification_messages_token, LONGEST_TOKEN).map(Personal),
        token_status: cut(&optin.user_token_status, LONGEST_TITLE),
        time_zone: cut(&optin.notification_messages_timezone, LONGEST_TITLE),
        expires_at: optin.token_expiry_timestamp.time(),
    }
}

fn cut(scalar: &Scalar<'_>, characters: usize) -> Option<String> {
    Some(scalar.any()?.chars().take(characters).collect())
}

fn other_kind(item: &Item<'_>, raw: &str) -> Result<EventKind, Reason> {
    let present = [
        (&item.pass_thread_control, EventKind::Handover(Handover::Pass)),
        (&item.take_thread_control, EventKind::Handover(Handover::Take)),
        (
            &item.request_thread_control,
            EventKind::Handover(Handover::Request),
        ),
        (&item.app_roles, EventKind::AppRoles),
        (&item.messaging_feedback, EventKind::Feedback),
        (
            &item.messaging_customer_information,
            EventKind::CustomerInformation,
        ),
        (&item.game_play, EventKind::GamePlay),
        (&item.payment, EventKind::Payment(Payment::Payment)),
        (&item.checkout_update, EventKind::Payment(Payment::CheckoutUpdate)),
        (&item.pre_checkout, EventKind::Payment(Payment::PreCheckout)),
    ];
    if let Some(policy) = object(&item.policy_enforcement)? {
        return Ok(EventKind::PolicyEnforcement {
            action: policy.action.any(),
        });
    }
    if let Some(feedback) = object(&item.response_feedback)? {
        return Ok(EventKind::ResponseFeedback {
            feedback: feedback.feedback.any(),
        });
    }
    for (node, kind) in present {
        if object(node)?.is_some() {
            return Ok(kind);
        }
    }
    Ok(match &item.optout {
        Object::Absent => match object(&item.referral)? {
            Some(source) if !holds_something_new(raw) => EventKind::Referral(referral_source(source)),
            _ => EventKind::Unknown,
        },
        Object::Other => EventKind::Optout(Optout::default()),
        Object::Is(optout) => EventKind::Optout(Optout {
            optout_type: optout.request.any(),
            title: cut(&optout.title, LONGEST_TITLE),
            topic: Topic {
                subscribed: false,
                ..topic(optout)
            },
        }),
    })
}

/// Whether an item holds an object that is none of those around a referral: then it is of a kind that we do not know, and
/// the referral stands beside it.
fn holds_something_new(item: &str) -> bool {
    const AROUND: [&str; 4] = ["sender", "recipient", "referral", "prior_message"];
    json::parse::<Members>(item).is_ok_and(|Members(members)| {
        let mut objects = members.iter().filter(|(_, value)| value.is_object());
        objects.any(|(name, _)| !AROUND.contains(&name.as_str()))
    })
}

/// The object under a key. Something else under a key that we know makes the item malformed.
fn object<T>(node: &Object<T>) -> Result<Option<&T>, Reason> {
    match node {
        Object::Absent => Ok(None),
        Object::Is(value) => Ok(Some(value)),
        Object::Other => Err(Reason::MalformedItem),
    }
}

fn personal(scalar: &Scalar<'_>) -> Option<Personal<String>> {
    scalar.any().map(Personal)
}

/// One that says nothing counts for none: a referral beside the item's kind may.
fn referral(node: &Object<wire::Referral<'_>>) -> Option<ReferralSource> {
    let source = node.get().map(referral_source);
    source.filter(|source| *source != ReferralSource::default())
}

fn referral_source(referral: &wire::Referral<'_>) -> ReferralSource {
    ReferralSource {
        reference: personal(&referral.reference),
        source: referral.source.any(),
        ad_id: referral.ad_id.any(),
    }
}

/// The dedup key. The kind comes first, as message, echo, edit and reaction share a `mid`.
///
/// Where a kind has no id of its own, the item's own time is part of it. The entry's time and that of receipt
/// never are, as they differ with each delivery: without a time of its own, it is told apart by what it says.
fn key(item: &Item<'_>, kind: &EventKind, raw: &str, time: Option<Timestamp>) -> String {
    let name = kind.name();
    let content = || Digest::of_parts([raw]).to_string();
    let time = time.map_or_else(content, |time| time.as_millisecond().to_string());
    let by_mid = |mid: &Option<Personal<String>>, more: &[&str]| match mid {
        Some(mid) => event_key(name, &[&[mid.as_str()], more].concat()),
        None => event_key(name, &[&time, &content()]),
    };
    match kind {
        EventKind::Message(message) => by_mid(&message.mid, &[]),
        EventKind::Echo { mid, .. } | EventKind::Unsend { mid } => by_mid(mid, &[]),
        EventKind::Edit { mid, num_edit } => by_mid(mid, &[num_edit.as_deref().unwrap_or("-")]),
        EventKind::Reaction(reaction) => {
            let action = if reaction.removed { "unreact" } else { "react" };
            by_mid(&reaction.mid, &[action, &time])
        }
        EventKind::Postback(postback) => match (&postback.mid, &postback.payload) {
            (None, Some(payload)) => {
                event_key(name, &[&time, &Digest::of_parts([payload.as_str()]).to_string()])
            }
            (mid, _) => by_mid(mid, &[]),
        },
        EventKind::Delivery => {
            let delivery = item.delivery.get();
            let mut mids: Vec<String> = delivery
                .into_iter()
                .flat_map(|delivery| delivery.mids.members())
                .filter_map(Scalar::any)
                .collect();
            mids.sort_unstable();
            let mids = Digest::of_parts(&mids).to_string();
            let watermark = delivery.and_then(|delivery| delivery.watermark.any());
            event_key(name, &[watermark.as_deref().unwrap_or(&time), &mids])
        }
        EventKind::Read => {
            let read = item.read.get();
            let upto = read.and_then(|read| read.watermark.any().or_else(|| read.mid.any()));
            event_key(name, &[&upto.unwrap_or(time)])
        }
        EventKind::Optin(_) => {
            let optin = item.optin.get();
            let words = optin.map(|optin| {
                [
                    &optin.user_ref,
                    &optin.reference,
                    &optin.one_time_notif_token,
                    &optin.notification_messages_token,
                    &optin.notification_messages_status,
                ]
                .map(|word| word.any().unwrap_or_default())
            });
            event_key(
                name,
                &[&time, &Digest::of_parts(words.iter().flatten()).to_string()],
            )
        }
        EventKind::AccountLinking(linking) => {
            let status = match linking {
                AccountLinking::Linked { .. } => "linked",
                AccountLinking::Unlinked => "unlinked",
                AccountLinking::Other(_) => "other",
            };
            event_key(name, &[&time, status])
        }
        EventKind::Handover(handover) => event_key(
            name,
            &[
                &time,
                match handover {
                    Handover::Pass => "pass",
                    Handover::Take => "take",
                    Handover::Request => "request",
                },
            ],
        ),
        EventKind::Referral(_)
        | EventKind::AppRoles
        | EventKind::PolicyEnforcement { .. }
        | EventKind::Feedback
        | EventKind::ResponseFeedback { .. }
        | EventKind::CustomerInformation
        | EventKind::GamePlay
        | EventKind::Payment(_)
        | EventKind::Optout(_)
        | EventKind::MarketingMessageEchoes
        | EventKind::MarketingMessageDeliveries
        | EventKind::MarketingMessageReads
        | EventKind::MarketingMessageClicks
        | EventKind::MarketingMessageDeliveryFailed
        | EventKind::MessageTemplateStatusUpdate
        | EventKind::Unknown => event_key(name, &[&time, &content()]),
    }
}
