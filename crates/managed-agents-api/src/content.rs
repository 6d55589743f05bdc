//! Blocks of content: what messages and tool results are made of.

use serde::{Deserialize, Serialize};

use crate::RawJson;
use crate::vocabulary::tagged;

tagged! {
    /// One block of a message or of a tool's result.
    pub enum ContentBlock {
        /// Text.
        Text(TextBlock) = "text",
        /// A picture.
        Image(ImageBlock) = "image",
        /// A document.
        Document(DocumentBlock) = "document",
        /// What a search found.
        SearchResult(SearchResultBlock) = "search_result",
    }
}

impl ContentBlock {
    /// A block of text. Servers refuse an empty one: see [`TextBlock::or_no_output`].
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(TextBlock { text: text.into() })
    }

    /// Its text, where it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(block) => Some(&block.text),
            _ => None,
        }
    }
}

/// Text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "text")]
pub struct TextBlock {
    /// The text; never empty on the wire.
    pub text: String,
}

impl TextBlock {
    /// `text`, or `(no output)` in place of an empty one, which the API refuses.
    pub fn or_no_output(text: impl Into<String>) -> Self {
        let text = text.into();
        if text.is_empty() {
            return Self {
                text: "(no output)".to_owned(),
            };
        }
        Self { text }
    }
}

/// A picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "image")]
pub struct ImageBlock {
    /// Where its bytes are.
    pub source: Source,
}

/// A document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "document")]
pub struct DocumentBlock {
    /// Where its content is.
    pub source: Source,
    /// Its title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "search_result")]
pub struct SearchResultBlock {
    /// Where it was found.
    pub source: String,
    /// Its title.
    pub title: String,
    /// Its text.
    pub content: Vec<ContentBlock>,
    /// Whether it may be cited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub citations: Option<RawJson>,
}

tagged! {
    /// Where the content of a block is.
    pub enum Source {
        /// In the block itself, as base64.
        Base64(Base64Source) = "base64",
        /// In the block itself, as text.
        Text(TextSource) = "text",
        /// At an address.
        Url(UrlSource) = "url",
        /// In an uploaded file.
        File(FileSource) = "file",
    }
}

/// Content in the block itself, as base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "base64")]
pub struct Base64Source {
    /// `image/png`, `application/pdf` and so on.
    pub media_type: String,
    /// Standard base64.
    pub data: String,
}

/// Content in the block itself, as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "text")]
pub struct TextSource {
    /// `text/plain`.
    pub media_type: String,
    /// The text.
    pub data: String,
}

/// Content at an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "url")]
pub struct UrlSource {
    /// The address.
    pub url: String,
}

/// Content in an uploaded file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "file")]
pub struct FileSource {
    /// `file_…`, opaque.
    pub file_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str) -> ContentBlock {
        let block: ContentBlock = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&block).unwrap(), text);
        block
    }

    #[test]
    fn every_block_survives() {
        assert_eq!(check(r#"{"type":"text","text":"a"}"#).as_text(), Some("a"));
        check(
            r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA=="}}"#,
        );
        check(r#"{"type":"image","source":{"type":"url","url":"https://a.example"}}"#);
        check(r#"{"type":"document","source":{"type":"file","file_id":"file_1"},"title":"t"}"#);
        check(
            r#"{"type":"document","source":{"type":"text","media_type":"text/plain","data":"d"}}"#,
        );
        check(
            r#"{"type":"search_result","source":"s","title":"t","content":[{"type":"text","text":"a"}],"citations":{"enabled":true}}"#,
        );
        let later = check(r#"{"type":"tool_reference", "weight":1e400}"#);
        assert_eq!((later.kind(), later.as_text()), ("tool_reference", None));
        assert!(serde_json::from_str::<ContentBlock>(r#"{"type":"text"}"#).is_err());
    }

    #[test]
    fn no_block_of_text_is_empty() {
        assert_eq!(TextBlock::or_no_output("").text, "(no output)");
        assert_eq!(TextBlock::or_no_output(" ").text, " ");
    }
}
