use super::path::resolve_for_change;
use super::read::{TEXT_BYTES, content, open_regular};
use super::write::replace;
use super::{Failure, Places};
use crate::input::EditInput;
use crate::result::ToolResult;

pub(super) fn edit(places: &Places, input: &EditInput) -> Result<ToolResult, Failure> {
    let given = &input.file_path;
    let target = resolve_for_change(places, given)?;
    let (file, size) = open_regular(&target, given)?;
    if size > TEXT_BYTES {
        return Err(Failure::new(format!(
            "{given} is {size} bytes, exceeds {TEXT_BYTES}-byte limit. The edit tool loads the whole \
             file and cannot modify a file this large."
        )));
    }
    let text = String::from_utf8(content(file, TEXT_BYTES, given)?).map_err(|_| {
        Failure::new(format!(
            "{given}: not valid UTF-8 text (cannot edit binary files)"
        ))
    })?;
    let old = input.old_string.as_str();
    if old.is_empty() {
        return Err(Failure::new(
            "old_string is empty; use write to fill a file",
        ));
    }
    let all = input.replace_all.unwrap_or(false);
    let count = match text.matches(old).count() {
        0 => return Err(Failure::new(format!("old_string not found in {given}"))),
        count if count > 1 && !all => {
            return Err(Failure::new(format!(
                "old_string appears {count} times in {given} (must be unique)"
            )));
        }
        count => count,
    };
    let edited = text.replace(old, &input.new_string);
    replace(&target, edited.as_bytes()).map_err(|error| Failure::io(given, &error))?;
    Ok(ToolResult::text(format!(
        "edited {given} ({count} replacement(s))"
    )))
}
