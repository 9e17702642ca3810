//! The shapes of items as Meta sends them, and as it might: every field takes every JSON type.

use serde::Deserialize;

use crate::json::{List, Object, Scalar};

/// An object of which only the presence counts.
#[derive(Deserialize)]
pub(super) struct Present {}

/// One member of `messaging[]` or `standby[]`. Which key it has is its kind.
#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Item<'a> {
    pub(super) sender: Object<Party<'a>>,
    pub(super) recipient: Object<Party<'a>>,
    pub(super) timestamp: Scalar<'a>,
    pub(super) prior_message: Object<PriorMessage<'a>>,
    pub(super) message: Object<Message<'a>>,
    pub(super) message_edit: Object<MessageEdit<'a>>,
    pub(super) delivery: Object<Delivery<'a>>,
    pub(super) read: Object<Read<'a>>,
    pub(super) postback: Object<Postback<'a>>,
    pub(super) optin: Object<Optin<'a>>,
    pub(super) referral: Object<Referral<'a>>,
    pub(super) reaction: Object<Reaction<'a>>,
    pub(super) account_linking: Object<AccountLinking<'a>>,
    pub(super) pass_thread_control: Object<Present>,
    pub(super) take_thread_control: Object<Present>,
    pub(super) request_thread_control: Object<Present>,
    pub(super) app_roles: Object<Present>,
    // The hyphen is the spelling of older documentation.
    #[serde(alias = "policy-enforcement")]
    pub(super) policy_enforcement: Object<PolicyEnforcement<'a>>,
    pub(super) messaging_feedback: Object<Present>,
    pub(super) response_feedback: Object<ResponseFeedback<'a>>,
    pub(super) messaging_customer_information: Object<Present>,
    pub(super) game_play: Object<Present>,
    pub(super) payment: Object<Present>,
    pub(super) checkout_update: Object<Present>,
    pub(super) pre_checkout: Object<Present>,
    // No sample is published; these are the names that the other fields' pattern suggests.
    #[serde(alias = "opt_out", alias = "messaging_optout", alias = "messaging_optouts")]
    pub(super) optout: Object<Optin<'a>>,
}

/// The value of a change that is about a marketing message or a template.
#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Flat<'a> {
    pub(super) recipient_id: Scalar<'a>,
    pub(super) page_id: Scalar<'a>,
    pub(super) timestamp: Scalar<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Party<'a> {
    pub(super) id: Scalar<'a>,
    pub(super) user_ref: Scalar<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct PriorMessage<'a> {
    pub(super) source: Scalar<'a>,
    pub(super) identifier: Scalar<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Message<'a> {
    pub(super) mid: Scalar<'a>,
    pub(super) text: Scalar<'a>,
    pub(super) is_echo: Scalar<'a>,
    pub(super) is_deleted: Scalar<'a>,
    pub(super) app_id: Scalar<'a>,
    pub(super) metadata: Scalar<'a>,
    pub(super) quick_reply: Object<QuickReply<'a>>,
    pub(super) attachments: List<Object<Attachment<'a>>>,
    pub(super) referral: Object<Referral<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct QuickReply<'a> {
    pub(super) payload: Scalar<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Attachment<'a> {
    #[serde(rename = "type")]
    pub(super) attachment_type: Scalar<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct MessageEdit<'a> {
    pub(super) mid: Scalar<'a>,
    pub(super) num_edit: Scalar<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Delivery<'a> {
    pub(super) mids: List<Scalar<'a>>,
    pub(super) watermark: Scalar<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Read<'a> {
    pub(super) mid: Scalar<'a>,
    pub(super) watermark: Scalar<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Postback<'a> {
    pub(super) mid: Scalar<'a>,
    pub(super) payload: Scalar<'a>,
    pub(super) referral: Object<Referral<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Optin<'a> {
    #[serde(rename = "type")]
    pub(super) request: Scalar<'a>,
    #[serde(rename = "ref")]
    pub(super) reference: Scalar<'a>,
    pub(super) user_ref: Scalar<'a>,
    pub(super) one_time_notif_token: Scalar<'a>,
    pub(super) notification_messages_token: Scalar<'a>,
    pub(super) notification_messages_status: Scalar<'a>,
    pub(super) notification_messages_timezone: Scalar<'a>,
    pub(super) title: Scalar<'a>,
    pub(super) user_token_status: Scalar<'a>,
    pub(super) token_expiry_timestamp: Scalar<'a>,
    pub(super) message_request: Scalar<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Referral<'a> {
    #[serde(rename = "ref")]
    pub(super) reference: Scalar<'a>,
    pub(super) source: Scalar<'a>,
    pub(super) ad_id: Scalar<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct Reaction<'a> {
    pub(super) mid: Scalar<'a>,
    pub(super) action: Scalar<'a>,
    #[serde(rename = "reaction")]
    pub(super) name: Scalar<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct AccountLinking<'a> {
    pub(super) status: Scalar<'a>,
    pub(super) authorization_code: Scalar<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct PolicyEnforcement<'a> {
    pub(super) action: Scalar<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct ResponseFeedback<'a> {
    pub(super) feedback: Scalar<'a>,
}
