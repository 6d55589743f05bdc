use serde::{Deserialize, Serialize};

/// What a tool call answers: content blocks as the platform takes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ToolResult {
    /// One or more blocks.
    pub content: Vec<Block>,
    /// The call did not do what was asked.
    pub is_error: bool,
    /// Exit status of a bash command, where it has one. For logs: it is not part of what is sent.
    #[serde(skip)]
    pub exit: Option<u8>,
}

/// A content block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Block {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// An image.
    Image {
        /// Where it is: here.
        source: Source,
    },
    /// A PDF document.
    Document {
        /// Where it is: here.
        source: Source,
    },
}

/// Bytes of an image or document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Source {
    /// In base64.
    Base64 {
        /// Such as `image/png`.
        media_type: String,
        /// The bytes, in standard base64.
        data: String,
    },
}

impl ToolResult {
    /// A good answer of one text; the platform takes no empty ones.
    pub fn text(text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.is_empty() {
            text.push_str("(no output)");
        }
        Self {
            content: vec![Block::Text { text }],
            is_error: false,
            exit: None,
        }
    }

    /// A failure, in words for the model.
    pub fn error(text: impl Into<String>) -> Self {
        Self {
            is_error: true,
            ..Self::text(text)
        }
    }

    /// A good answer of one block.
    pub(crate) fn block(block: Block) -> Self {
        Self {
            content: vec![block],
            is_error: false,
            exit: None,
        }
    }

    /// All text of it, for logs of tests and for hosts that show text only.
    pub fn as_text(&self) -> String {
        let texts = self.content.iter().filter_map(|block| match block {
            Block::Text { text } => Some(text.as_str()),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }
}
