//! Tests of the whole core, over a virtual link.

mod pair;

mod basic;
