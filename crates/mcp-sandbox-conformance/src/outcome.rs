use std::fmt;
use std::time::Duration;

/// What came of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It held; what else is worth knowing, such as a control that was not possible.
    Passed(Option<String>),
    /// It did not hold.
    Failed(String),
    /// Its effect can only be judged by a host view, and there is none.
    NotObservable,
    /// The backend or its host cannot run it, and says why.
    Skipped(String),
}

/// One case and what came of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CaseOutcome {
    /// Short stable id, such as `F02`.
    pub id: &'static str,
    /// What should hold.
    pub title: &'static str,
    /// What came of it.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
}

/// What came of a whole run. `Display` is the report.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Outcome {
    /// All cases in the order in which they ran.
    pub cases: Vec<CaseOutcome>,
}

impl Outcome {
    /// Whether no case failed.
    pub fn passed(&self) -> bool {
        self.failed().next().is_none()
    }

    /// The cases that failed.
    pub fn failed(&self) -> impl Iterator<Item = &CaseOutcome> {
        self.cases
            .iter()
            .filter(|case| matches!(case.verdict, Verdict::Failed(_)))
    }

    /// The cases that were skipped.
    pub fn skipped(&self) -> impl Iterator<Item = &CaseOutcome> {
        self.cases
            .iter()
            .filter(|case| matches!(case.verdict, Verdict::Skipped(_)))
    }

    /// The cases whose effect nobody could see.
    pub fn not_observable(&self) -> impl Iterator<Item = &CaseOutcome> {
        self.cases
            .iter()
            .filter(|case| case.verdict == Verdict::NotObservable)
    }

    pub(crate) fn push(&mut self, case: CaseOutcome) {
        self.cases.push(case);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for case in &self.cases {
            let (word, text) = match &case.verdict {
                Verdict::Passed(None) => ("ok", ""),
                Verdict::Passed(Some(note)) => ("ok", note.as_str()),
                Verdict::Failed(why) => ("FAILED", why.as_str()),
                Verdict::NotObservable => ("not observable", "needs a host view"),
                Verdict::Skipped(why) => ("SKIPPED", why.as_str()),
            };
            let millis = case.took.as_millis();
            writeln!(
                f,
                "{:<4} {:<62} {millis:>6} ms  {word} {text}",
                case.id, case.title
            )?;
        }
        writeln!(
            f,
            "{} cases: {} failed, {} not observable, {} skipped",
            self.cases.len(),
            self.failed().count(),
            self.not_observable().count(),
            self.skipped().count()
        )
    }
}
