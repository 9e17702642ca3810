//! What needs more than one module, or a service: one binary, so that it links once.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod contacts;
mod fbe;
mod fbe_order;
mod fbe_view;
mod graph;
mod lease;
mod outbox;
mod personal;
mod stored_keys;

use shared::clock::Clock;
use shared::messenger::table::Contacts;
use shared::outbox::Outbox;
use testkit::aws::EmbeddedAws;
use testkit::template::Template;

/// The tables as the template declares them.
struct Tables {
    aws: EmbeddedAws,
    outbox: Outbox,
    contacts: Contacts,
    clock: Clock,
    template: Template,
    contacts_table: String,
    outbox_table: String,
}

impl Tables {
    async fn create() -> Self {
        let aws = EmbeddedAws::in_memory().await.unwrap();
        let template = Template::parse(include_str!("../../../template.yaml")).unwrap();
        aws.create_tables(&template).await.unwrap();
        let name = |logical_id: &str| template.table(logical_id).unwrap().name.clone();
        let clock = Clock::fixed(testkit::time::start());
        let outbox = Outbox::new(aws.dynamodb(), name("OutboxTable"), clock.clone());
        let contacts = Contacts::new(
            aws.dynamodb(),
            name("ContactsTable"),
            outbox.clone(),
            clock.clone(),
        );
        Self {
            aws,
            outbox,
            contacts,
            clock,
            contacts_table: name("ContactsTable"),
            outbox_table: name("OutboxTable"),
            template,
        }
    }

    fn later(&self, seconds: i64) {
        self.clock
            .set(self.clock.now() + jiff::SignedDuration::from_secs(seconds));
    }
}
