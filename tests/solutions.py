"""Our own right programs for some tasks of HumanEval-Mul, by language and number of task, and how to make each wrong.

The tasks are not quoted here; a program is what solves the task of that number.
"""

PROGRAMS = {
    "java": {
        4: """class Problem {
    public static float meanAbsoluteDeviation(ArrayList<Float> numbers) {
        float mean = 0f, sum = 0f;
        for (float x : numbers) mean += x;
        mean /= numbers.size();
        for (float x : numbers) sum += Math.abs(x - mean);
        return sum / numbers.size();
    }
}""",
        12: """import java.util.Optional;

public class Problem {
    public static Optional<String> longest(ArrayList<String> strings) {
        String best = null;
        for (String s : strings) if (best == null || s.length() > best.length()) best = s;
        return Optional.ofNullable(best);
    }

    public static void main(String[] args) {
        System.out.println(longest(new ArrayList<>(Arrays.asList("a", "bb"))));
    }
}""",
        13: """public static long greatestCommonDivisor(long a, long b) {
    return b == 0 ? a : greatestCommonDivisor(b, a % b);
}""",
        14: """class Problem {
    public static ArrayList<String> allPrefixes(String string) {
        return IntStream.rangeClosed(1, string.length()).mapToObj(n -> string.substring(0, n))
            .collect(Collectors.toCollection(ArrayList::new));
    }
}""",
        34: """class Problem {
    public static ArrayList<Long> unique(ArrayList<Long> l) {
        return new ArrayList<>(new TreeSet<>(l));
    }
}""",
        48: """class Problem {
    private static String turned(String s) { return new StringBuilder(s).reverse().toString(); }
    public static boolean isPalindrome(String text) { return text.equals(turned(text)); }
}""",
        162: """class Problem {
    public static Optional<String> stringToMd5(String text) throws NoSuchAlgorithmException {
        if (text.isEmpty()) return Optional.empty();
        byte[] digest = MessageDigest.getInstance("MD5").digest(text.getBytes());
        return Optional.of(String.format("%032x", new BigInteger(1, digest)));
    }
}""",
    },
    "cs": {
        4: """class Problem {
    public static float MeanAbsoluteDeviation(List<float> numbers) {
        float mean = numbers.Sum() / numbers.Count;
        return numbers.Select(x => Math.Abs(x - mean)).Sum() / numbers.Count;
    }
}""",
        13: "public static long GreatestCommonDivisor(long a, long b) => b == 0 ? a : GreatestCommonDivisor(b, a % b);",
        14: """class Problem {
    public static List<string> AllPrefixes(string str) {
        return Enumerable.Range(1, str.Length).Select(n => str.Substring(0, n)).ToList();
    }
}""",
        34: """using System;
using System.Collections.Generic;
using System.Linq;

public static class Problem {
    public static List<long> Unique(List<long> l) { return l.Distinct().OrderBy(x => x).ToList(); }

    public static void Main(string[] args) { Console.WriteLine(Unique(new List<long>())); }
}""",
        48: """class Problem {
    public static bool IsPalindrome(string text) { return text.SequenceEqual(text.Reverse()); }
}""",
    },
    "cpp": {
        12: """#include <optional>
using namespace std;

optional<string> longest(vector<string> strings) {
    optional<string> best;
    for (auto &s : strings) if (!best || s.size() > best->size()) best = s;
    return best;
}

int main() {
    cout << *longest({"a", "bb"}) << endl;
}""",
        13: """long greatest_common_divisor(long a, long b) {
    return b == 0 ? a : greatest_common_divisor(b, a % b);
}""",
        22: """std::vector<long> filter_integers(std::vector<std::any> values) {
    std::vector<long> kept;
    for (auto &v : values)
        if (v.type() == typeid(int)) kept.push_back(std::any_cast<int>(v));
    return kept;
}""",
        34: """std::vector<long> unique(std::vector<long> l) {
    std::set<long> s(l.begin(), l.end());
    return std::vector<long>(s.begin(), s.end());
}""",
        103: """Union_std_string_long rounded_avg(long n, long m) {
    if (n > m) return -1L;
    long mean = std::lrint((n + m) / 2.0);
    std::string bits;
    for (; mean; mean /= 2) bits = char('0' + mean % 2) + bits;
    return "0b" + bits;
}""",
        162: """#include <openssl/md5.h>

std::optional<std::string> string_to_md5(std::string text) {
    if (text.empty()) return std::nullopt;
    unsigned char digest[16];
    char hex[33];
    MD5((const unsigned char *)text.data(), text.size(), digest);
    for (int i = 0; i < 16; i++) std::snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    return std::string(hex);
}""",
    },
    "js": {
        4: """function mean_absolute_deviation(numbers){
  const mean = numbers.reduce((a, b) => a + b, 0) / numbers.length;
  return numbers.reduce((a, b) => a + Math.abs(b - mean), 0) / numbers.length;
}""",
        12: """const assert = require('assert');
const longest = (strings) =>
  strings.reduce((best, s) => best === undefined || s.length > best.length ? s : best, undefined);
assert.strictEqual(longest(['a', 'bb']), 'bb');
module.exports = { longest };""",
        13: "function greatest_common_divisor(a, b){\n  return b === 0 ? a : greatest_common_divisor(b, a % b);\n}",
        14: "function all_prefixes(string){\n  return [...string].map((_, i) => string.slice(0, i + 1));\n}",
        34: "function unique(l){\n  return [...new Set(l)].sort((a, b) => a - b);\n}",
        48: "function is_palindrome(text){\n  return text === [...text].reverse().join('');\n}",
        162: """function string_to_md5(text){
  if (text === '') return undefined;
  return require('crypto').createHash('md5').update(text).digest('hex');
}""",
    },
    "ts": {
        4: """function mean_absolute_deviation(numbers: number[]): number {
  const mean: number = numbers.reduce((a, b) => a + b, 0) / numbers.length;
  return numbers.reduce((a, b) => a + Math.abs(b - mean), 0) / numbers.length;
}""",
        12: """const longest = (strings: string[]): string | undefined => {
  let name: string | undefined;
  for (const s of strings) if (name === undefined || s.length > name.length) name = s;
  return name;
};
console.log(longest(['a', 'bb']));
export { longest };""",
        13: """function greatest_common_divisor(a: number, b: number): number {
  return b === 0 ? a : greatest_common_divisor(b, a % b);
}""",
        34: "function unique(l: number[]): number[] {\n  return Array.from(new Set(l)).sort((a, b) => a - b);\n}",
        162: """declare var require: any;
function string_to_md5(text: string): string | undefined {
  if (text === '') return undefined;
  return require('crypto').createHash('md5').update(text).digest('hex');
}""",
    },
    "php": {
        4: """<?php
function mean_absolute_deviation($numbers) {
    $mean = array_sum($numbers) / count($numbers);
    return array_sum(array_map(fn($x) => abs($x - $mean), $numbers)) / count($numbers);
}
?>""",
        12: """<?php
declare(strict_types=1);
function longest($strings) {
    $best = null;
    foreach ($strings as $s) if ($best === null || strlen($s) > strlen($best)) $best = $s;
    return $best;
}
echo longest(["a", "bb"]);""",
        13: """function greatest_common_divisor($a, $b) {
    return $b === 0 ? $a : greatest_common_divisor($b, $a % $b);
}""",
        14: """<?php
function all_prefixes($string) {
    $found = [];
    for ($n = 1; $n <= strlen($string); $n++) $found[] = substr($string, 0, $n);
    return $found;
}""",
        34: "<?php\nfunction unique($l) {\n    $l = array_unique($l);\n    sort($l);\n    return $l;\n}",
        48: "<?php\nfunction is_palindrome($text) {\n    return $text === strrev($text);\n}",
        162: "<?php\nfunction string_to_md5($text) {\n    return $text === '' ? null : md5($text);\n}",
    },
    "sh": {
        4: """#!/bin/bash
mean_absolute_deviation() {
  echo "$1" | tr ' ' '\\n' | awk '{ x[NR] = $1; sum += $1 }
    END { mean = sum / NR; for (i = 1; i <= NR; i++) { d = x[i] - mean; total += d < 0 ? -d : d }
          printf (total / NR == int(total / NR) ? "%.1f\\n" : "%.10g\\n"), total / NR }'
}""",
        12: """longest() {
  local best=None length=-1 s
  for s in $1; do
    if (( ${#s} > length )); then best=$s; length=${#s}; fi
  done
  echo "$best"
}""",
        13: """greatest_common_divisor() {
  if [ "$2" -eq 0 ]; then echo "$1"; else greatest_common_divisor "$2" $(( $1 % $2 )); fi
}""",
        14: """function all_prefixes {
  local found=() n
  for ((n = 1; n <= ${#1}; n++)); do found+=("${1:0:n}"); done
  echo "${found[*]}"
}
all_prefixes abc""",
        34: "unique() {\n  echo $(tr ' ' '\\n' <<< \"$1\" | sort -nu)\n}",
        48: "is_palindrome() {\n  if [[ $1 == \"$(rev <<< \"$1\")\" ]]; then echo true; else echo false; fi\n}",
        162: """string_to_md5() {
  if [ -z "$1" ]; then echo None; else echo -n "$1" | md5sum | cut -d' ' -f1; fi
}""",
    },
}  # fmt: skip

FLAWED = {
    "java/136": """class Problem {
    public static Pair<Optional<Long>, Optional<Long>> largestSmallestIntegers(ArrayList<Long> lst) {
        return Pair.with(lst.stream().filter(x -> x < 0).max(Long::compare),
                         lst.stream().filter(x -> x > 0).min(Long::compare));
    }
}""",
    "cs/12": """class Problem {
    public static string Longest(List<string> strings) {
        string best = null;
        foreach (var s in strings) if (best == null || s.Length > best.Length) best = s;
        return best;
    }
}""",
    "cs/136": """class Problem {
    public static Tuple<Nullable<long>, Nullable<long>> LargestSmallestIntegers(List<long> lst) {
        return Tuple.Create(lst.Where(x => x < 0).Select(x => (long?)x).Max(),
                            lst.Where(x => x > 0).Select(x => (long?)x).Min());
    }
}""",
    "cs/162": """class Problem {
    public static string StringToMd5(string text) {
        if (text == "") return null;
        using (var md5 = MD5.Create())
            return string.Concat(md5.ComputeHash(Encoding.UTF8.GetBytes(text)).Select(b => b.ToString("x2")));
    }
}""",
    "php/23": "<?php\nfunction strlen($string) {\n    return count(str_split($string)) * ($string !== '');\n}",
}  # fmt: skip
"""Right programs that the tests of the public files refuse, whatever they return; `programs.FLAWED` lists them."""

WRONG = {
    4: [("Math.abs(", "("), ("Math.Abs(", "("), ("abs(", "("), ("-d :", "d :")],
    12: [(" > best.", " >= best."), (" > best->", " >= best->"), (" > name", " >= name"), (" > strlen", " >= strlen"),
         (" > length", " >= length")],
    13: [("a % b", "a / b"), ("$a % $b", "intdiv($a, $b)"), ("$1 % $2", "$1 / $2")],
    14: [("(1, ", "(0, "), ("i + 1", "i"), ("$n = 1", "$n = 0"), ("n = 1", "n = 0")],
    22: [("typeid(int)", "typeid(long)")],
    34: [("TreeSet", "LinkedHashSet"), (".OrderBy(x => x)", ""), ("a - b", "b - a"), ("s.begin()", "l.begin()"),
         ("s.end()", "l.end()"), ("sort($l);", ""), ("sort -nu", "sort -n")],
    48: [("equals(turned(text))", "equals(text)"), (".Reverse()", ""), (".reverse()", ""), ("strrev($text)", "$text"),
         ("rev <<<", "cat <<<")],
    103: [("n + m", "n + m + 2")],
    162: [("%032x", "%x1"), ("MD5.Create", "SHA1.Create"), ("'md5'", "'sha1'"), ("digest[i]", "digest[15 - i]"),
          (": md5(", ": sha1("), ("md5sum", "sha1sum")],
}  # fmt: skip
"""Of a task's programs: what is put in place of what."""


def made_wrong(number: int, program: str) -> str:
    """A program with the first of its task's changes that applies; of 34 in C++ both ends.

    >>> made_wrong(13, "a % b")
    'a / b'
    """
    changes = [(old, new) for old, new in WRONG[number] if old in program]
    for old, new in changes if "std::set" in program else changes[:1]:
        program = program.replace(old, new)
    return program


CONTESTS = {
    52: """for _ in range(int(input())):
    n, k = map(int, input().split())
    print(sum(pow(n, i, 10**9 + 7) for i in range(k.bit_length()) if k >> i & 1) % (10**9 + 7))
""",
    75: """n, a = int(input()), list(map(int, input().split()))
i, j, last, turn = 0, n - 1, -1, 0
def run(k, step):
    length = 1
    while i <= k + step <= j and a[k + step] > a[k]:
        k, length = k + step, length + 1
    return length
while True:
    left, right = a[i] > last, a[j] > last
    if i > j or not (left or right):
        turn ^= 1
        break
    odd = [left and run(i, 1) % 2, right and run(j, -1) % 2]
    if any(odd):
        break
    if not (left and right) or a[i] == a[j]:
        turn ^= 1
        break
    if a[i] < a[j]:
        last, i = a[i], i + 1
    else:
        last, j = a[j], j - 1
    turn ^= 1
print(["Alice", "Bob"][turn])
""",
    113: """for _ in range(int(input())):
    (x, p), (y, q) = (map(int, input().split()) for _ in range(2))
    less = min(p, q)
    p, q = min(p - less, 7), min(q - less, 7)
    x, y = x * 10**p, y * 10**q
    print("<" if x < y else ">" if x > y else "=")
""",
    139: """for _ in range(int(input())):
    s = input()
    half = len(s) // 2
    print("YES" if s[:half] == s[half:] else "NO")
""",
}
"""By row of CodeContests' file, from 0."""

CONTESTS_WRONG = {
    52: ("k >> i & 1", "k >> i"),
    75: ("any(odd)", "all(odd)"),
    113: (", 7)", ", 1)"),
    139: ("// 2", "// 3"),
}
