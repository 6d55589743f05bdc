//! The two families of protocol revisions.

/// Which rules an exchange follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the specification knows these two")]
pub enum Era {
    /// Revisions up to 2025-11-25: sessions, an event stream by GET; a cut connection cancels nothing.
    Legacy,
    /// 2026-07-28 and later: every request stands alone; a cut connection cancels its request.
    Modern,
}

/// Name of the HTTP header that carries the revision.
pub const PROTOCOL_VERSION_HEADER: &str = "mcp-protocol-version";

/// The first revision of the modern era.
pub const FIRST_MODERN_VERSION: &str = "2026-07-28";

/// The newest revision of the legacy era.
pub const LAST_LEGACY_VERSION: &str = "2025-11-25";

impl Era {
    /// Tells the era by a revision, a date; anything else is legacy, as is no revision at all.
    ///
    /// ```
    /// use mcp_messages::Era;
    /// assert_eq!(Era::of_version(Some("2026-07-28")), Era::Modern);
    /// assert_eq!(Era::of_version(None), Era::Legacy);
    /// ```
    #[must_use]
    pub fn of_version(version: Option<&str>) -> Self {
        match version.map(str::trim) {
            Some(version) if is_date(version) && version >= FIRST_MODERN_VERSION => Self::Modern,
            _ => Self::Legacy,
        }
    }
}

fn is_date(text: &str) -> bool {
    text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| {
            if matches!(at, 4 | 7) {
                byte == b'-'
            } else {
                byte.is_ascii_digit()
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eras() {
        for legacy in [
            "2024-11-05",
            "2025-03-26",
            "2025-06-18",
            LAST_LEGACY_VERSION,
            "",
            "draft",
            "zzzz-zz-zz",
            "9",
        ] {
            assert_eq!(Era::of_version(Some(legacy)), Era::Legacy, "{legacy}");
        }
        for modern in [FIRST_MODERN_VERSION, " 2026-07-28 ", "2027-01-01"] {
            assert_eq!(Era::of_version(Some(modern)), Era::Modern, "{modern}");
        }
    }
}
