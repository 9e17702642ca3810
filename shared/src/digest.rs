//! SHA-256, of which ids and keys are made. Keys of an older version are compared with ours: none may change.

use std::fmt;

use sha2::Sha256;

/// A SHA-256. Shows itself as 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of the bytes as they are.
    #[must_use]
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(<Sha256 as sha2::Digest>::digest(bytes).into())
    }

    /// Of several parts, each with its length before it (8 bytes, big-endian), so that no two lists run together.
    #[must_use]
    pub fn of_parts<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> Self {
        let mut hash = <Sha256 as sha2::Digest>::new();
        for part in parts {
            let part = part.as_ref();
            sha2::Digest::update(&mut hash, (part.len() as u64).to_be_bytes());
            sha2::Digest::update(&mut hash, part);
        }
        Self(sha2::Digest::finalize(hash).into())
    }

    /// The first 128 bits as 32 hexadecimal digits: short enough for keys and logs, long enough that no two share them.
    #[must_use]
    pub fn short(&self) -> String {
        hex::encode(self.0.first_chunk::<16>().copied().unwrap_or_default())
    }

    /// One of `count` shards.
    #[must_use]
    pub fn shard(&self, count: u16) -> u16 {
        let [first, ..] = self.0;
        u16::from(first).checked_rem(count).unwrap_or_default()
    }
}

/// Whether a text has the form of [`Digest::short`]: 32 hexadecimal digits in small letters.
#[must_use]
pub fn is_short(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Computed with sha256sum.
    const OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const OF_A: &str = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";

    #[test]
    fn a_digest_is_sha_256() {
        assert_eq!(Digest::of("a").to_string(), OF_A);
        assert_eq!(Digest::of("a").short(), OF_A[..32]);
        assert_eq!(Digest::of("a").shard(16), 0xca % 16);
        assert_eq!(Digest::of_parts([""; 0]).to_string(), OF_NOTHING);
        assert_eq!(Digest::of_parts(["a"]), Digest::of(b"\0\0\0\0\0\0\0\x01a"));
    }

    #[test]
    fn parts_never_run_together() {
        assert_ne!(Digest::of_parts(["ab", "c"]), Digest::of_parts(["a", "bc"]));
        assert_ne!(Digest::of_parts(["ab"]), Digest::of_parts(["ab", ""]));
    }

    #[test]
    fn short_ones_are_32_hexadecimal_digits() {
        assert!(is_short(&Digest::of("a").short()) && is_short(&"0af9".repeat(8)));
        for text in [
            "",
            "0af9",
            &"0ag9".repeat(8),
            &"0af9".repeat(9),
            &"0AF9".repeat(8),
        ] {
            assert!(!is_short(text), "{text}");
        }
    }
}
