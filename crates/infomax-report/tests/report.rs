//! Pages and charts are well-formed, escaped, whole, and the same each time.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use infomax_report::{
    Bars, Cell, Chart, Figure, HeatMap, Inline, Line, Page, Points, Section, Table, Verdict, data_uri,
};
use roxmltree::{Document, ParsingOptions};

const HOSTILE: &str = "</title><script>alert('1')</script> & \"quotes\" \u{0}\u{8} \u{1F600}";

fn parse(text: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).unwrap()
}

fn texts(document: &Document<'_>) -> String {
    document.descendants().filter(|n| n.is_text()).filter_map(|n| n.text()).collect::<Vec<_>>().join("\n")
}

fn charts(name: &str, values: &[f64]) -> Vec<Figure> {
    let points = || values.iter().enumerate().map(|(k, v)| (k as f64, *v));
    let band = values.iter().map(|v| (v - 1.0, v + 1.0));
    let xy = |chart: Chart| {
        let line = Line::new(name, points()).band(band.clone()).dashed();
        let hints =
            Points::new(name, points()).hints(values.iter().map(|_| name.to_owned())).size(6.0).ramp(0.3);
        let bins = points().map(|(x, y)| (x, x + 1.0, y));
        let chart = chart.x(name).y(name).add(line).points_of(hints).points(name, points());
        chart.histogram(name, bins).mark_x(1.0, name).mark_y(0.5, name)
    };
    let bars = |bars: Bars| {
        let all = values.iter().fold(bars.axis(name), |bars, v| bars.row(name, *v));
        all.row_within(name, values.first().copied().unwrap_or(f64::NAN), Some((0.0, 1.0)), Some((-1.0, 2.0)))
    };
    let names = vec![name; values.len()];
    vec![
        xy(Chart::new(name)).into(),
        xy(Chart::new(name).log_x().log_y()).into(),
        xy(Chart::new(name).x_range(0.0, 2.0).y_range(-1.0, 1.0).without_ticks()).into(),
        bars(Bars::new(name)).into(),
        bars(Bars::of_points(name)).into(),
        HeatMap::new(name, names.clone(), names, vec![values.to_vec(); values.len()]).axes(name, name).into(),
    ]
}

#[test]
fn every_chart_is_well_formed_whatever_it_holds() {
    let wide: Vec<f64> = (0..50).map(|k| f64::from(k) * 0.1 - 2.0).collect();
    let inputs: [&[f64]; 9] = [
        &[],
        &[1.0],
        &[0.0, 0.0],
        &[f64::NAN, f64::INFINITY],
        &[1.0, f64::NAN, 3.0, f64::NEG_INFINITY],
        &[1e308, -1e308, 1.0],
        &[1e-308, 1e-300],
        &[-5.0, -4.0],
        &wide,
    ];
    for values in inputs {
        for figure in charts(HOSTILE, values) {
            let svg = figure.to_svg_file();
            let document = parse(&svg);
            assert!(!svg.contains("NaN\"") && !svg.contains("inf\"") && !svg.contains("<script"), "{svg}");
            let title = document.root_element().attribute("aria-label").unwrap();
            assert_eq!(title, HOSTILE.replace(['\u{0}', '\u{8}'], "\u{fffd}"));
            assert!(!svg.contains("var(--"), "a file of its own has fixed colors");
            assert_eq!(svg, figure.clone().to_svg_file());
        }
    }
}

#[test]
fn what_is_not_drawn_is_said() {
    let said = |figure: &dyn Fn() -> String| texts(&parse(&figure()));
    let nothing = said(&|| Chart::new("c").line("a", [(0.0, f64::NAN)]).to_svg_file());
    assert!(nothing.contains("nothing to draw"), "{nothing}");
    let some = said(&|| Chart::new("c").line("a", [(0.0, 1.0), (1.0, f64::NAN), (2.0, 1.0)]).to_svg_file());
    assert!(some.contains("1 points are not finite and not drawn"), "{some}");
    let log =
        said(&|| Chart::new("c").log_y().line("a", [(0.0, 1.0), (1.0, 0.0), (2.0, -1.0)]).to_svg_file());
    assert!(log.contains("2 points are not finite or not positive"), "{log}");
    let whole = said(&|| Chart::new("c").line("a", [(0.0, 1.0), (1.0, 2.0)]).to_svg_file());
    assert!(!whole.contains("not"), "{whole}");
    let map = said(&|| HeatMap::new("m", ["a", "b"], ["c"], vec![vec![1.0]]).to_svg_file());
    assert!(map.contains("1 cells have no finite value"), "{map}");
    assert!(said(&|| HeatMap::new("m", ["a"; 0], ["c"], vec![]).to_svg_file()).contains("nothing to draw"));
    assert!(said(&|| Bars::new("b").row("a", f64::NAN).to_svg_file()).contains("nothing to draw"));
}

#[test]
fn a_line_has_a_gap_and_a_place_on_its_axes() {
    let chart = Chart::new("c").line("a", [(0.0, 0.0), (1.0, 1.0), (2.0, f64::NAN), (3.0, 1.0), (4.0, 0.0)]);
    let svg = chart.to_svg_file();
    let document = parse(&svg);
    let inner = document
        .descendants()
        .filter(|n| n.has_tag_name("svg") || n.tag_name().name() == "svg")
        .nth(1)
        .unwrap();
    let path = inner.descendants().find_map(|n| n.attribute("d")).unwrap();
    assert_eq!(path.matches('M').count(), 2, "{path}");
    let number = |name: &str| inner.attribute(name).unwrap().parse::<f64>().unwrap();
    let last = path.rsplit(['M', 'L']).next().unwrap();
    let (x, y) = last.split_once(' ').unwrap();
    // The last value is the largest of x, and the smallest of y 4 % above the foot.
    assert!((x.parse::<f64>().unwrap() - number("width")).abs() < 0.02, "{path}");
    assert!((y.parse::<f64>().unwrap() - number("height") * (1.0 - 0.04 / 1.08)).abs() < 0.02, "{path}");
}

#[test]
fn classes_have_a_legend_of_which_the_rest_is_counted() {
    let class = |k: usize| Points::new(format!("class {k}"), [(k as f64, 0.0)]);
    let chart = |n: usize| (0..n).fold(Chart::new("map"), |chart, k| chart.points_of(class(k))).to_svg_file();
    let (few, many) = (chart(3), chart(100));
    let (few, many) = (texts(&parse(&few)), texts(&parse(&many)));
    assert!(few.contains("class 2") && !few.contains("more"), "{few}");
    assert!(
        many.contains("class 22") && !many.contains("class 23\n") && many.contains("and 77 more"),
        "{many}"
    );
}

fn page(name: &str) -> Page {
    let mut table = Table::stacked([Cell::from(name), Cell::right("value")]);
    table.row([Cell::from(name), Cell::number(1.0 / 3.0, 3)]);
    table.row([Cell::badge(Verdict::Warning, name)]);
    let chart = Chart::new(name).line(name, [(0.0, 1.0), (1.0, 2.0)]);
    let section = |title: &str| {
        Section::new(title)
            .verdict(Verdict::Bad, name)
            .text(name)
            .inline([
                Inline::Code(name.into()),
                Inline::Strong(name.into()),
                Inline::Link("in".into(), "#s1".into()),
                Inline::Link("out".into(), "https://arxiv.org/abs/2303.00633".into()),
                Inline::Link("never".into(), "javascript:alert(1)".into()),
            ])
            .items([name, name])
            .figure(chart.clone(), name)
            .figure(chart.clone(), name)
            .table(table.clone())
            .pictures([
                (data_uri("image/png", b"not shown"), name.to_owned()),
                ("https://example.org/x.png".to_owned(), name.to_owned()),
            ])
            .code(name)
            .folded(name, Section::new("").figure(chart.clone(), "inside"))
    };
    Page::new(name)
        .lead(name)
        .section(section("One"))
        .section(section("Two"))
        .section(section("Three"))
        .footer(name)
}

#[test]
fn a_page_is_whole_escaped_and_loads_nothing() {
    let html = page(HOSTILE).to_html();
    assert_eq!(html, page(HOSTILE).to_html());
    let document = parse(&html);
    let count = |name: &str| document.descendants().filter(|n| n.tag_name().name() == name).count();
    assert_eq!((count("section"), count("h2"), count("nav"), count("figcaption")), (3, 3, 1, 3 * 5));
    assert_eq!((count("script"), count("link"), count("iframe")), (0, 0, 0));
    // A picture from elsewhere is not even named; a row that is too short has its cells.
    assert_eq!((count("img"), count("td")), (3, 3 * 4));
    for node in document.descendants() {
        for attribute in node.attributes() {
            let outside = attribute.value().contains("://") && attribute.name() != "href";
            assert!(!outside && !attribute.value().contains("javascript:"), "{attribute:?}");
            assert!(!attribute.name().starts_with("on"), "{attribute:?}");
        }
    }
    assert!(!html.contains("url(") && !html.contains("@import"));
    let policy = document.descendants().find(|n| n.attribute("http-equiv").is_some()).unwrap();
    assert!(policy.attribute("content").unwrap().starts_with("default-src 'none'"));
    assert!(html.contains("prefers-color-scheme:dark") && html.contains("width=device-width"));
    assert!(html.contains("var(--s0)") && html.contains("<table class=\"stacked\">"));
    // Every variable that is used is defined.
    for (at, _) in html.match_indices("var(--") {
        let name = html[at + 6..].split(')').next().unwrap();
        assert!(html.contains(&format!("--{name}:")), "{name}");
    }
}

#[test]
fn elements_that_html_cannot_close_by_a_slash_are_closed_by_a_tag() {
    let html = page("").to_html();
    for (at, _) in html.match_indices("/>") {
        let name = html[..at].rsplit('<').next().unwrap().split(' ').next().unwrap();
        let drawn = html[..at].rfind("<svg ") > html[..at].rfind("</figure>");
        assert!(drawn || ["meta", "br", "img"].contains(&name), "{name}");
    }
}
