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

use jiff::SignedDuration;
use shared::messenger::table::Contacts;
use shared::outbox::Outbox;
use testkit::house::House;

/// The tables as the template declares them.
struct Tables {
    house: House,
    outbox: Outbox,
    contacts: Contacts,
}

impl Tables {
    async fn create() -> Self {
        let house = House::start().await.unwrap();
        let (aws, clock) = (&house.aws, &house.clock);
        let outbox = Outbox::new(
            aws.dynamodb(),
            house.table("OutboxTable").to_owned(),
            clock.clone(),
        );
        let contacts = Contacts::new(house.table("ContactsTable").to_owned(), outbox.clone());
        Self {
            house,
            outbox,
            contacts,
        }
    }

    fn later(&self, seconds: i64) {
        self.house.later(SignedDuration::from_secs(seconds));
    }
}
