//! Reading bodies of 64 KB: as JSON, and those that Liquid broke.

use divan::Bencher;
use jiff::Timestamp;
use shared::whatsapp::inbound::{Inbound, parse};

fn main() {
    divan::main();
}

fn text() -> String {
    "a \"quoted\" word, a brace }\nand 👩‍👩‍👧; ".repeat(1_600)
}

fn three_keys(message: &str) -> String {
    format!("{{\"user_id\": \"42\", \"phone_number\": \"+1555\", \"message\": \"{message}\"}}")
}

fn read(bencher: Bencher<'_, '_>, body: &str) {
    bencher
        .counter(divan::counter::BytesCount::new(body.len()))
        .bench(|| {
            let read = parse(divan::black_box(body.as_bytes()), None, Timestamp::UNIX_EPOCH);
            assert!(matches!(read, Inbound::Message(_)));
            read
        });
}

#[divan::bench]
fn valid_json(bencher: Bencher<'_, '_>) {
    let escaped = serde_json::to_string(&text()).unwrap_or_default();
    read(bencher, &three_keys(escaped.trim_matches('"')));
}

#[divan::bench]
fn broken_three_keys(bencher: Bencher<'_, '_>) {
    read(bencher, &three_keys(&text()));
}

#[divan::bench]
fn broken_full_template(bencher: Bencher<'_, '_>) {
    let tail = "\"media_urls\": \"\", \"profile_name\": \"\", \"product_id\": \"\", \"catalog_id\": \"\", \
                \"flow_response\": \"\", \"dispatch_id\": \"d\", \"campaign_id\": \"c\"}";
    let head = "{\"user_id\": \"42\", \"braze_id\": \"\", \"phone_number\": \"+1555\", \"first_name\": \"\", \
                \"language\": \"\", \"message\": \"";
    read(bencher, &format!("{head}{}\", {tail}", text()));
}
