//! Line charts as SVG. They bring their own light background, so that they read
//! the same on a light and on a dark page.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// The picture, in its own units.
const SIZE: (f64, f64) = (760.0, 400.0);

/// What is left free around the plot: left, top, right, bottom.
const MARGINS: [f64; 4] = [78.0, 44.0, 24.0, 52.0];

/// The height of a line of the legend, which stands below the picture.
const LEGEND: f64 = 20.0;

/// Colours that the colour-blind tell apart, by Okabe and Ito, without those that
/// are pale on a light background.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#555555"];

/// How lines are dashed that have the same colour.
const DASHES: [&str; 2] = ["none", "6 4"];

/// Lines over a common x.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Chart {
    /// The name of its file, without `.svg`.
    pub(crate) file: String,
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Axis {
    /// What it shows, with its unit.
    pub(crate) label: String,
    pub(crate) scale: Scale,
}

/// How values become places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Scale {
    /// From 0, or from the least value if that is below.
    Linear,
    /// By powers of ten; all values are above 0.
    Logarithmic,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    /// What the legend calls it.
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// An axis with its range, and where on the picture it begins and ends.
struct Ruler {
    scale: Scale,
    /// In the terms of the scale: values, or their logarithms.
    range: (f64, f64),
    place: (f64, f64),
}

impl Axis {
    pub(crate) fn linear(label: &str) -> Self {
        Self { label: label.to_owned(), scale: Scale::Linear }
    }

    pub(crate) fn logarithmic(label: &str) -> Self {
        Self { label: label.to_owned(), scale: Scale::Logarithmic }
    }
}

impl Chart {
    /// The whole file.
    pub(super) fn svg(&self) -> String {
        let [left, top, right, bottom] = MARGINS;
        let (width, height) = SIZE;
        let points = || self.lines.iter().flat_map(|line| line.points.iter().copied());
        let x = Ruler::over(self.x.scale, points().map(|(x, _)| x), (left, width - right));
        let y = Ruler::over(self.y.scale, points().map(|(_, y)| y), (height - bottom, top));
        let full = (1..self.lines.len()).fold(height + LEGEND, |height, _| height + LEGEND) + 12.0;

        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {full}\" \
             width=\"{width}\" height=\"{full}\" role=\"img\" \
             font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
             <title>{title}</title>\n\
             <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#fcfcfc\"/>\n\
             <text x=\"{left}\" y=\"26\" font-size=\"16\" font-weight=\"600\">{title}</text>\n",
            title = escaped(&self.title),
        );
        self.grid(&mut svg, &x, &y);
        for (number, line) in self.lines.iter().enumerate() {
            draw(&mut svg, line, style(number), &x, &y);
        }
        self.legend(&mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    fn grid(&self, svg: &mut String, x: &Ruler, y: &Ruler) {
        let ((left, right), (bottom, top)) = (x.place, y.place);
        for (value, at) in x.ticks() {
            let _ = writeln!(
                svg,
                "<path d=\"M{at:.1} {bottom}V{top}\" stroke=\"#ddd\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 18.0,
                shown(value),
            );
        }
        for (value, at) in y.ticks() {
            let _ = writeln!(
                svg,
                "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 8.0,
                at + 4.5,
                shown(value),
            );
        }
        let (middle, centre) = (f64::midpoint(left, right), f64::midpoint(top, bottom));
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"#333\"/>\n\
             <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
             <text transform=\"translate(18 {centre}) rotate(-90)\" \
             text-anchor=\"middle\">{}</text>",
            bottom + 40.0,
            escaped(&self.x.label),
            escaped(&self.y.label),
        );
    }

    fn legend(&self, svg: &mut String) {
        let mut y = SIZE.1 + LEGEND / 2.0;
        for (number, line) in self.lines.iter().enumerate() {
            let (colour, dashes) = style(number);
            let _ = writeln!(
                svg,
                "<path d=\"M{0} {y}h22\" stroke=\"{colour}\" stroke-dasharray=\"{dashes}\" \
                 stroke-width=\"2.5\"/>\
                 <text x=\"{1}\" y=\"{2}\">{3}</text>",
                MARGINS[0],
                MARGINS[0] + 30.0,
                y + 4.5,
                escaped(&line.name),
            );
            y += LEGEND;
        }
    }
}

/// The colour and the dashes that tell a line from the others.
fn style(number: usize) -> (&'static str, &'static str) {
    (COLOURS[number % COLOURS.len()], DASHES[number / COLOURS.len() % DASHES.len()])
}

fn draw(svg: &mut String, line: &Line, style: (&str, &str), x: &Ruler, y: &Ruler) {
    let (colour, dashes) = style;
    let places: Vec<_> =
        line.points.iter().map(|&(at, value)| (x.place_of(at), y.place_of(value))).collect();
    let path: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" \
         stroke-dasharray=\"{dashes}\" stroke-width=\"2\"/>",
        path.join(" "),
    );
    // So many are a curve.
    if places.len() <= 30 {
        for (x, y) in places {
            let _ =
                writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
        }
    }
}

impl Ruler {
    fn over(scale: Scale, values: impl Iterator<Item = f64>, place: (f64, f64)) -> Self {
        let values = values.map(|value| scale.of(value)).filter(|value| value.is_finite());
        let (least, most) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, m), v| (l.min(v), m.max(v)));
        let range = match scale {
            _ if least > most => (0.0, 1.0),
            Scale::Linear => (least.min(0.0), if most > 0.0 { most * 1.05 } else { 1.0 }),
            // The next power of ten on both sides, so that there is something to read.
            Scale::Logarithmic => (least.floor(), most.ceil().max(least.floor() + 1.0)),
        };
        Self { scale, range, place }
    }

    fn place_of(&self, value: f64) -> f64 {
        let ((from, to), (begin, end)) = (self.range, self.place);
        begin + (self.scale.of(value) - from) / (to - from) * (end - begin)
    }

    /// Values that are easy to read, with their places.
    fn ticks(&self) -> Vec<(f64, f64)> {
        let (from, to) = self.range;
        // The least of 1, 2 and 5 times a power of ten that makes six ticks or fewer.
        let step = match self.scale {
            Scale::Logarithmic => ((to - from) / 8.0).ceil(),
            Scale::Linear => {
                let power = 10_f64.powf(((to - from) / 6.0).log10().floor());
                let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
                steps.into_iter().find(|step| (to - from) / step <= 6.0).unwrap_or(to - from)
            }
        };
        let mut ticks = Vec::new();
        let mut number = (from / step).ceil();
        while number * step <= to + step * 1e-6 {
            let value = self.scale.value(number * step);
            ticks.push((value, self.place_of(value)));
            number += 1.0;
        }
        ticks
    }
}

impl Scale {
    fn of(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => value.log10(),
        }
    }

    fn value(self, place: f64) -> f64 {
        match self {
            Self::Linear => place,
            Self::Logarithmic => 10_f64.powf(place),
        }
    }
}

/// With a suffix for thousands and millions, and without digits that say nothing.
fn shown(value: f64) -> String {
    let (value, suffix) = match value.abs() {
        1e6.. => (value / 1e6, " M"),
        1e4.. => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let rounded = (value * 1e4).round() / 1e4;
    // No minus before a zero.
    format!("{}{suffix}", rounded + 0.0)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
