//! Hands the target that `FUZZ_TARGET` names to libFuzzer.
//!
//! Built with `--cfg fuzzing` and the compiler's coverage passes; without them it lists the targets.

#![cfg_attr(fuzzing, no_main)]
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static RUN: std::sync::OnceLock<fn(&[u8])> = std::sync::OnceLock::new();
    let run = RUN.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
        fuzz::target(&name).expect("FUZZ_TARGET names a known target")
    });
    run(bytes);
});

#[cfg(not(fuzzing))]
fn main() {
    for (name, _) in fuzz::TARGETS {
        println!("{name}");
    }
}
