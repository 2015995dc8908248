// Package query reads and evaluates the part of IoT Hub's query language that
// people use on twins.
//
//	SELECT [TOP n] * | path [AS name], … | aggregate [AS name], … FROM devices | devices.modules
//	[WHERE condition] [GROUP BY path, …]
//
// Aggregates are COUNT(), SUM, AVG, MIN and MAX of a path; they may stand beside
// paths of GROUP BY.
// Conditions have = != <> < <= > >= IN NIN AND OR NOT and the functions
// is_defined, STARTSWITH and ENDSWITH. Jobs are refused with a clear
// word. https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-query-language
//
// # Usage
//
// Parse the text; Match each twin; Results makes the answer of those that matched.
//
// # Concurrency
//
// A Query is read-only.
//
// # Expected behaviour of the other side
//
// Comparisons with what is not there are undefined, and so is their negation.
//
// # Debugging
//
// Errors name the word at which parsing stopped.
//
// # Testing
//
// Tables of conditions and of refusals; FuzzParse.
package query
