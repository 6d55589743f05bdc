//! Files of at most 600 and functions of at most 80 code lines, tests not counted.

use super::{Source, finding};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 80;

pub(super) fn check(source: &Source) -> Result<Vec<String>> {
    if !source.is_rust() || source.is_test() {
        return Ok(Vec::new());
    }
    let file = syn::parse_file(&source.text)
        .with_context(|| format!("parsing {}", source.path.display()))?;
    let mut walk = Walk {
        code: code_lines(&source.text),
        tests: BTreeSet::new(),
        long: Vec::new(),
    };
    walk.visit_file(&file);
    let lines = walk.code.difference(&walk.tests).count();
    let mut findings = Vec::new();
    if lines > FILE_LINES {
        let text = format!("{lines} code lines, at most {FILE_LINES}: split it by concern");
        findings.push(finding(&source.path, 1, &text));
    }
    for (line, name, length) in walk.long {
        let text = format!("`{name}` has {length} code lines, at most {FUNCTION_LINES}");
        findings.push(finding(&source.path, line, &text));
    }
    Ok(findings)
}

/// Numbers of the lines that hold more than a comment or white space.
fn code_lines(text: &str) -> BTreeSet<usize> {
    let is_code = |line: &str| !line.is_empty() && !line.starts_with("//");
    let numbered = text
        .lines()
        .enumerate()
        .filter(|(_, line)| is_code(line.trim()));
    numbered.map(|(index, _)| index + 1).collect()
}

struct Walk {
    code: BTreeSet<usize>,
    tests: BTreeSet<usize>,
    long: Vec<(usize, String, usize)>,
}

impl Walk {
    fn on_function(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let lines = body.span().start().line..=body.span().end().line;
        let length = self.code.range(lines.clone()).count();
        let flat_match = matches!(
            body.stmts.as_slice(),
            [syn::Stmt::Expr(syn::Expr::Match(_), _)]
        );
        if length > FUNCTION_LINES && !flat_match && !self.tests.contains(lines.start()) {
            self.long
                .push((*lines.start(), signature.ident.to_string(), length));
        }
    }
}

impl<'ast> Visit<'ast> for Walk {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let is_test = module.attrs.iter().any(|attribute| match &attribute.meta {
            syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
            _ => false,
        });
        if is_test && module.content.is_some() {
            self.tests
                .extend(module.span().start().line..=module.span().end().line);
        }
        visit::visit_item_mod(self, module);
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.on_function(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.on_function(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }
}
