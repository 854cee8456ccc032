//! What this parser accepts, expat accepts, and both see the same elements (expat comes with every python3).

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::xml::tree::{Node, parse};
use crate::{Encoding, encode_client, encode_server, strategies};

const DOCUMENTS: usize = 60_000;

/// What mutations put in: whatever could make two parsers disagree.
const TOKENS: &[&[u8]] = &[
    b"<",
    b">",
    b"/",
    b"'",
    b"\"",
    b"=",
    b"&",
    b";",
    b" ",
    b"\t",
    b"\r\n",
    b"\r",
    b"&amp;",
    b"&#65;",
    b"&#x41;",
    b"&#0;",
    b"&#xD800;",
    b"&#xFFFE;",
    b"&#13;",
    b"&apos;",
    b"&nbsp;",
    b"]]>",
    b"<!--x-->",
    b"<![CDATA[x]]>",
    b"<?pi x?>",
    b"<!DOCTYPE a>",
    b"<a>",
    b"</a>",
    b"<a/>",
    b"xmlns=''",
    b"xmlns:p='urn:p'",
    b"p:",
    b"xml:lang='en'",
    b"\0",
    b"\x0b",
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xef\xbf\xbe",
    b"\xef\xbb\xbf",
    b"\xc2\x85",
    b"\xc3\xa9",
    b" id='1'",
    b"-",
    b"!",
    b"?",
    b"[",
    b"]",
    b"\xf4\x90\x80\x80",
    b"xmlns='urn:causeway:1'",
    b" a='1'",
    b" a=\"<\"",
    b"%",
    b"#",
];

/// The same text for the same tree; the python program below prints it too.
fn print(node: &Node<'_>, out: &mut String) {
    let mut attributes: Vec<_> = node.attributes().collect();
    attributes.sort_unstable();
    let _ = write!(out, "({}", node.name);
    for (name, value) in attributes {
        let _ = write!(out, " {name}={}", hex::encode(value));
    }
    let _ = write!(out, " {}", hex::encode(node.text.as_bytes()));
    for child in &node.children {
        print(child, out);
    }
    out.push(')');
}

const PROGRAM: &str = r#"
import sys
from xml.parsers import expat
NS = "urn:causeway:1 "
def tree(data):
    parser = expat.ParserCreate(namespace_separator=" ")
    stack, roots = [], []
    def start(name, attributes):
        node = [name, attributes, [], []]
        (stack[-1][3] if stack else roots).append(node)
        stack.append(node)
    def end(name): stack.pop()
    def text(data): stack[-1][2].append(data)
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    parser.Parse(data, True)
    return roots[0]
def show(node):
    name, attributes, text, children = node
    name = name[len(NS):] if name.startswith(NS) else "?" + name
    parts = "".join(" %s=%s" % (k, v.encode().hex()) for k, v in sorted(attributes.items()))
    return "(" + name + parts + " " + "".join(text).encode().hex() + "".join(map(show, children)) + ")"
for line in sys.stdin:
    try: print(show(tree(bytes.fromhex(line.strip()))))
    except expat.ExpatError as error: print("refused: %s" % error)
"#;

/// A small generator of numbers: the same documents in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

fn mutate(document: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(3) {
        let at = dice.below(document.len() + 1);
        let length = dice.below(12).min(document.len() - at);
        match dice.below(5) {
            0 | 1 => drop(document.splice(at..at, TOKENS[dice.below(TOKENS.len())].iter().copied())),
            2 => drop(document.splice(at..at + length, TOKENS[dice.below(TOKENS.len())].iter().copied())),
            3 => drop(document.drain(at..at + length)),
            _ => {
                let piece = document[at..at + length].to_vec();
                let to = dice.below(document.len() + 1);
                document.splice(to..to, piece);
            }
        }
    }
}

#[test]
fn expat_agrees_with_whatever_is_accepted() {
    let mut runner = TestRunner::deterministic();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let seeds: Vec<Vec<u8>> = (0..200)
        .map(|index| match index % 2 {
            0 => encode_client(Encoding::Xml, strategies::from_client().new_tree(&mut runner).unwrap().current()),
            _ => encode_server(Encoding::Xml, strategies::from_server().new_tree(&mut runner).unwrap().current()),
        })
        .filter(|seed| seed.len() < 4096)
        .collect();

    let mut accepted = Vec::new();
    for index in 0..DOCUMENTS {
        let mut document = seeds[index % seeds.len()].clone();
        mutate(&mut document, &mut dice);
        if let Ok(root) = parse(&document) {
            let mut printed = String::new();
            print(&root, &mut printed);
            accepted.push((document.clone(), printed));
        }
    }
    assert!(accepted.len() > DOCUMENTS / 20, "too few mutants survive to compare: {}", accepted.len());

    let mut python = Command::new("python3")
        .args(["-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is needed for this test: install it");
    let input: String = accepted.iter().map(|(document, _)| hex::encode(document) + "\n").collect();
    let mut stdin = python.stdin.take().expect("piped");
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = python.wait_with_output().expect("python3 ends");
    writer.join().expect("the writer does not panic").expect("python3 reads everything");
    let answers = String::from_utf8(output.stdout).expect("python3 prints UTF-8");
    assert_eq!(answers.lines().count(), accepted.len());
    for ((document, ours), theirs) in accepted.iter().zip(answers.lines()) {
        assert_eq!(ours, theirs, "{:?}", String::from_utf8_lossy(document));
    }
}
