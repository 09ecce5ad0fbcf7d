//! The page.

use crate::chart::Figure;
use crate::text::number;
use crate::theme::{Theme, variables};
use crate::xml::Xml;

const STYLE: &str = include_str!("page.css");
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// A judgment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// As it should be.
    Good,
    /// To look at.
    Warning,
    /// Wrong.
    Bad,
    /// Not known, or not a matter of good and bad.
    Neutral,
}

/// A piece of text.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Inline {
    /// As it is.
    Text(String),
    /// A name from a program, in a fixed pitch.
    Code(String),
    /// Stressed.
    Strong(String),
    /// A judgment in a word.
    Badge(Verdict, String),
    /// A link: text and address. Anything but `http:`, `https:` and `#` is written as text.
    Link(String, String),
}

/// A cell of a table.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    parts: Vec<Inline>,
    right: bool,
}

/// A table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    head: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
    stacked: bool,
}

/// A part of a page.
#[derive(Clone, Debug)]
pub struct Section {
    title: String,
    verdict: Option<(Verdict, String)>,
    blocks: Vec<Block>,
}

/// One HTML page.
#[derive(Clone, Debug)]
pub struct Page {
    title: String,
    lead: Vec<Vec<Inline>>,
    sections: Vec<Section>,
    footer: Option<String>,
}

#[derive(Clone, Debug)]
enum Block {
    Text(Vec<Inline>),
    Items(Vec<Vec<Inline>>),
    Table(Table),
    Figure(Box<Figure>, String),
    Pictures(Vec<(String, String)>),
    Code(String),
    Folded(String, Box<Section>),
}

impl From<&str> for Inline {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Inline {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Inline>> From<T> for Cell {
    fn from(part: T) -> Self {
        Self { parts: vec![part.into()], right: false }
    }
}

impl Cell {
    /// A number with so many significant digits, to the right.
    pub fn number(value: f64, digits: usize) -> Self {
        Self { right: true, ..Self::from(number(value, digits)) }
    }

    /// Text to the right, as numbers are.
    pub fn right(text: impl Into<Inline>) -> Self {
        Self { right: true, ..Self::from(text) }
    }

    /// A judgment in a word.
    pub fn badge(verdict: Verdict, text: impl Into<String>) -> Self {
        Self::from(Inline::Badge(verdict, text.into()))
    }

    /// Several pieces.
    pub fn of(parts: impl IntoIterator<Item = Inline>) -> Self {
        Self { parts: parts.into_iter().collect(), right: false }
    }
}

impl Table {
    /// A table with the names of its columns. A column of numbers has its name to the right if that is a
    /// [`Cell::right`].
    pub fn new<C: Into<Cell>>(head: impl IntoIterator<Item = C>) -> Self {
        Self { head: head.into_iter().map(Into::into).collect(), rows: Vec::new(), stacked: false }
    }

    /// A table whose rows become blocks on a narrow screen, the last cell on lines of its own, as suits a last column of
    /// sentences. Others are scrolled sideways there.
    pub fn stacked<C: Into<Cell>>(head: impl IntoIterator<Item = C>) -> Self {
        Self { stacked: true, ..Self::new(head) }
    }

    /// Adds a row; one that is too short ends with empty cells.
    pub fn row<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl Section {
    /// A section without contents.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), verdict: None, blocks: Vec::new() }
    }

    /// A judgment beside the title.
    #[must_use]
    pub fn verdict(mut self, verdict: Verdict, text: impl Into<String>) -> Self {
        self.verdict = Some((verdict, text.into()));
        self
    }

    /// A paragraph.
    #[must_use]
    pub fn text(self, text: impl Into<String>) -> Self {
        self.inline([Inline::Text(text.into())])
    }

    /// A paragraph of several pieces.
    #[must_use]
    pub fn inline(self, parts: impl IntoIterator<Item = Inline>) -> Self {
        self.push(Block::Text(parts.into_iter().collect()))
    }

    /// A list of sentences.
    #[must_use]
    pub fn items<I: Into<Inline>>(self, items: impl IntoIterator<Item = I>) -> Self {
        self.push(Block::Items(items.into_iter().map(|item| vec![item.into()]).collect()))
    }

    /// A table.
    #[must_use]
    pub fn table(self, table: Table) -> Self {
        self.push(Block::Table(table))
    }

    /// A chart with a sentence below it. Charts that follow each other stand side by side where there is room.
    #[must_use]
    pub fn figure(self, figure: impl Into<Figure>, caption: impl Into<String>) -> Self {
        self.push(Block::Figure(Box::new(figure.into()), caption.into()))
    }

    /// Small pictures, each with its caption. Their addresses are those of [`crate::data_uri`]; another address is not
    /// loaded.
    #[must_use]
    pub fn pictures(self, pictures: impl IntoIterator<Item = (String, String)>) -> Self {
        self.push(Block::Pictures(pictures.into_iter().collect()))
    }

    /// Lines of a program or a configuration.
    #[must_use]
    pub fn code(self, text: impl Into<String>) -> Self {
        self.push(Block::Code(text.into()))
    }

    /// A part that is folded away at first, under a line of text.
    #[must_use]
    pub fn folded(self, summary: impl Into<String>, contents: Section) -> Self {
        self.push(Block::Folded(summary.into(), Box::new(contents)))
    }

    fn push(mut self, block: Block) -> Self {
        self.blocks.push(block);
        self
    }
}

impl Page {
    /// A page without contents.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), lead: Vec::new(), sections: Vec::new(), footer: None }
    }

    /// A paragraph below the title.
    #[must_use]
    pub fn lead(self, text: impl Into<String>) -> Self {
        self.lead_inline([Inline::Text(text.into())])
    }

    /// A paragraph of several pieces below the title.
    #[must_use]
    pub fn lead_inline(mut self, parts: impl IntoIterator<Item = Inline>) -> Self {
        self.lead.push(parts.into_iter().collect());
        self
    }

    /// Adds a section.
    #[must_use]
    pub fn section(mut self, section: Section) -> Self {
        self.sections.push(section);
        self
    }

    /// A line at the end: the version of the program, say.
    #[must_use]
    pub fn footer(mut self, text: impl Into<String>) -> Self {
        self.footer = Some(text.into());
        self
    }

    /// The whole file. From three sections on it has a list of them; the anchors are `#s1`, `#s2` and so on.
    pub fn to_html(&self) -> String {
        let mut xml = Xml::default();
        xml.raw("<!DOCTYPE html>\n");
        xml.open("html", &[("lang", "en")]);
        xml.open("head", &[]);
        xml.empty("meta", &[("charset", "utf-8")]);
        xml.empty("meta", &[("http-equiv", "Content-Security-Policy"), ("content", POLICY)]);
        xml.empty("meta", &[("name", "viewport"), ("content", "width=device-width, initial-scale=1")]);
        xml.empty("meta", &[("name", "color-scheme"), ("content", "light dark")]);
        xml.element("title", &[], &self.title);
        xml.open("style", &[]);
        let (light, dark) = (variables(false), variables(true));
        xml.raw(&format!(":root{{color-scheme:light dark;{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"));
        xml.raw(&format!("@media print{{:root{{{light}}}}}\n{STYLE}"));
        xml.close();
        xml.close();
        xml.open("body", &[]);
        xml.open("header", &[]);
        xml.element("h1", &[], &self.title);
        for part in &self.lead {
            paragraph(&mut xml, part);
        }
        xml.close();
        if self.sections.len() > 2 {
            xml.open("nav", &[("aria-label", "Contents")]);
            for (k, section) in self.sections.iter().enumerate() {
                xml.element("a", &[("href", &format!("#s{}", k + 1))], &section.title);
                xml.text(" ");
            }
            xml.close();
        }
        xml.open("main", &[]);
        for (k, section) in self.sections.iter().enumerate() {
            xml.line();
            xml.open("section", &[("id", &format!("s{}", k + 1))]);
            xml.open("h2", &[]);
            xml.text(&section.title);
            if let Some((verdict, text)) = &section.verdict {
                xml.text(" ");
                inline(&mut xml, &Inline::Badge(*verdict, text.clone()));
            }
            xml.close();
            section.blocks(&mut xml);
            xml.close();
        }
        xml.close();
        if let Some(text) = &self.footer {
            xml.element("footer", &[], text);
        }
        let mut out = xml.finish();
        out.push('\n');
        out
    }
}

impl Section {
    fn blocks(&self, xml: &mut Xml) {
        let mut together = false;
        for block in &self.blocks {
            xml.line();
            let figure = matches!(block, Block::Figure(..));
            if figure && !together {
                xml.open("div", &[("class", "figures")]);
            } else if !figure && together {
                xml.close();
            }
            together = figure;
            match block {
                Block::Text(parts) => paragraph(xml, parts),
                Block::Items(items) => {
                    xml.open("ul", &[]);
                    for item in items {
                        xml.open("li", &[]);
                        item.iter().for_each(|part| inline(xml, part));
                        xml.close();
                    }
                    xml.close();
                }
                Block::Table(table) => table.write(xml),
                Block::Figure(figure, caption) => {
                    xml.open("figure", &[]);
                    xml.raw(&figure.svg(Theme::Page));
                    xml.element("figcaption", &[], caption);
                    xml.close();
                }
                Block::Pictures(pictures) => {
                    xml.open("div", &[("class", "pictures")]);
                    for (address, caption) in pictures {
                        // A drawing is a figure, and no thumbnail.
                        let drawing = address.starts_with("data:image/svg");
                        xml.open("figure", if drawing { &[("class", "drawing")] } else { &[] });
                        if address.starts_with("data:image/") {
                            xml.empty("img", &[("src", address), ("alt", caption), ("loading", "lazy")]);
                        }
                        xml.element("figcaption", &[], caption);
                        xml.close();
                    }
                    xml.close();
                }
                Block::Code(text) => {
                    xml.open("pre", &[("tabindex", "0")]);
                    xml.element("code", &[], text);
                    xml.close();
                }
                Block::Folded(summary, contents) => {
                    xml.open("details", &[]);
                    xml.element("summary", &[], summary);
                    contents.blocks(xml);
                    xml.close();
                }
            }
        }
        if together {
            xml.close();
        }
    }
}

impl Table {
    fn write(&self, xml: &mut Xml) {
        // Wide tables scroll by themselves, not the page.
        xml.open(
            "div",
            &[("class", "table"), ("tabindex", "0"), ("role", "region"), ("aria-label", "Table")],
        );
        xml.open("table", if self.stacked { &[("class", "stacked")] } else { &[] });
        xml.open("thead", &[]);
        xml.open("tr", &[]);
        for cell in &self.head {
            cell.write(xml, "th");
        }
        xml.close();
        xml.close();
        xml.open("tbody", &[]);
        for row in &self.rows {
            xml.open("tr", &[]);
            for k in 0..row.len().max(self.head.len()) {
                row.get(k).unwrap_or(&Cell::default()).write(xml, "td");
            }
            xml.close();
        }
        xml.close();
        xml.close();
        xml.close();
    }
}

impl Cell {
    fn write(&self, xml: &mut Xml, tag: &'static str) {
        let mut attributes = Vec::new();
        if self.right {
            attributes.push(("class", "n"));
        }
        if tag == "th" {
            attributes.push(("scope", "col"));
        }
        xml.open(tag, &attributes);
        self.parts.iter().for_each(|part| inline(xml, part));
        xml.close();
    }
}

fn paragraph(xml: &mut Xml, parts: &[Inline]) {
    xml.open("p", &[]);
    parts.iter().for_each(|part| inline(xml, part));
    xml.close();
}

fn inline(xml: &mut Xml, part: &Inline) {
    match part {
        Inline::Text(text) => xml.text(text),
        Inline::Code(text) => xml.element("code", &[], text),
        Inline::Strong(text) => xml.element("strong", &[], text),
        Inline::Badge(verdict, text) => {
            let class = match verdict {
                Verdict::Good => "badge good",
                Verdict::Warning => "badge warning",
                Verdict::Bad => "badge bad",
                Verdict::Neutral => "badge",
            };
            xml.element("span", &[("class", class)], text);
        }
        Inline::Link(text, address)
            if ["http://", "https://", "#"].iter().any(|p| address.starts_with(p)) =>
        {
            xml.element("a", &[("href", address), ("rel", "noreferrer")], text);
        }
        Inline::Link(text, _) => xml.text(text),
    }
}
